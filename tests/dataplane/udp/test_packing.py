"""How addresses and control data lie in the memory that io_uring is given."""

from __future__ import annotations

import ctypes
import socket
import struct

import pytest

from uproxy.dataplane.udp import packing
from uproxy.net import pktinfo

NAME_V4 = struct.pack("=H", socket.AF_INET) + bytes([0x1F, 0x90, 192, 0, 2, 7])
NAME_V6 = (
    struct.pack("=H", socket.AF_INET6)
    + bytes([0x1F, 0x90, 0, 0, 0, 0])
    + socket.inet_pton(socket.AF_INET6, "fe80::7")
    + struct.pack("=I", 3)
)


def test_clients() -> None:
    assert packing.client_of(NAME_V4) == ("192.0.2.7", 8080)
    assert packing.client_of(NAME_V6) == ("fe80::7", 8080, 0, 3)


@pytest.mark.parametrize("local", ["192.0.2.1", "0.0.0.0"])
def test_keys_of_ipv4_are_numbers(local: str) -> None:
    packed = socket.inet_aton(local)
    assert packing.split_key(int.from_bytes(NAME_V4 + packed, "little")) == (NAME_V4, packed)


def test_keys_of_ipv6_are_bytes() -> None:
    local = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    assert packing.split_key(NAME_V6 + local) == (NAME_V6, local)
    assert packing.split_key(NAME_V6) == (NAME_V6, b"")


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_control_data_is_as_the_kernel_lays_it_out(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    control = pktinfo.reply_from(socket.inet_pton(family, address))
    packed = packing.packed_control(control)
    assert len(packed) == socket.CMSG_LEN(len(control[0][2]))
    length, level, kind = struct.unpack_from("=Qii", packed)
    assert (length, level, kind) == (len(packed), *control[0][:2])
    room = packing.CONTROL_V6 if ":" in address else packing.CONTROL_V4
    assert room == socket.CMSG_SPACE(len(control[0][2]))


def test_a_message_header_has_the_size_that_the_c_library_gives_it() -> None:
    class MessageHeader(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32),
            ("vectors", ctypes.c_void_p), ("vector_count", ctypes.c_size_t),
            ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
            ("flags", ctypes.c_int),
        )  # fmt: skip

    assert ctypes.sizeof(MessageHeader) == packing.HEADER.size
    made = MessageHeader.from_buffer(bytearray(packing.HEADER.pack(1, 2, 3, 4, 5, 6, 7)))
    assert [getattr(made, name) for name, _ in MessageHeader._fields_] == [1, 2, 3, 4, 5, 6, 7]
