"""Many datagrams in one system call: sendmmsg(2) and recvmmsg(2) through ctypes.

Both ends of a UDP flow are Python programs of the benchmark. Without batches, their speed would be
measured instead of that of the proxy between them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Sequence

MSG_WAITFORONE = 0x10000
_NAME_SIZE = 16
_CONTROL_LENGTH, _CONTROL_SIZE = 28, 32
"""CMSG_LEN and CMSG_SPACE of struct in_pktinfo on 64-bit machines."""
_SOURCE = 20
"""Where in the control data the source address of a datagram is."""
_IP_PKTINFO = 8
_UDP_SEGMENT, _SEGMENT_SPACE = 103, 24

_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct mmsghdr, with the struct msghdr that it begins with written out."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_size_t),  # An int and what aligns the end of msghdr.
        ("received", ctypes.c_uint),
    )


class Batch:
    """`count` datagrams of `size` bytes each, in memory that stays where it is."""

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size
        self._payload = bytearray(count * size)
        self._names = bytearray(count * _NAME_SIZE)
        self._controls = bytearray(count * _CONTROL_SIZE)
        self._vectors = (_Vector * count)()
        self._headers = (_Header * count)()
        start = _address(self._payload)
        for index, (vector, header) in enumerate(zip(self._vectors, self._headers, strict=True)):
            vector.base = start + index * size
            vector.length = size
            header.vectors = ctypes.pointer(vector)
            header.vector_count = 1

    def keep_peers(self) -> None:
        """Receive peers' addresses too, so that `send` returns the datagrams to them."""
        start = _address(self._names)
        for index, header in enumerate(self._headers):
            header.name, header.name_length = start + index * _NAME_SIZE, _NAME_SIZE

    def address_to(self, destination: tuple[str, int], sources: Sequence[str]) -> None:
        """Send everything to one place, each datagram from the next of the source addresses.

        IP_PKTINFO (ip(7)) makes one socket the sender of any number of flows.
        """
        host, port = destination
        self.keep_peers()
        name = struct.pack("=H2s4s8x", socket.AF_INET, port.to_bytes(2, "big"), _packed(host))
        self._names[:] = name * self.count
        start = _address(self._controls)
        for index, header in enumerate(self._headers):
            source = _packed(sources[index % len(sources)])
            head = struct.pack("Nii", _CONTROL_LENGTH, socket.IPPROTO_IP, _IP_PKTINFO)
            control = head + struct.pack("=i4s4s4x", 0, source, bytes(4))
            at = index * _CONTROL_SIZE
            self._controls[at : at + _CONTROL_SIZE] = control
            header.control, header.control_length = start + at, _CONTROL_SIZE

    def source(self, index: int, packed: bytes) -> None:
        """Send a datagram from another address, in network order."""
        at = index * _CONTROL_SIZE + _SOURCE
        self._controls[at : at + 4] = packed

    def received(self, index: int) -> int:
        """How many bytes a message has that was received."""
        count: int = self._headers[index].received
        return count

    def answer_in_segments(self, count: int, size: int) -> None:
        """Make what was received the next to be sent, each message cut into datagrams of a size
        (UDP_SEGMENT). `restore` makes it ready to receive again."""
        if not any(self._controls):
            control = struct.pack("NiiH", 18, socket.IPPROTO_UDP, _UDP_SEGMENT, size)
            self._controls[:] = control.ljust(_CONTROL_SIZE, b"\0") * self.count
            self._control = _address(self._controls)
        for header, vector in zip(self._headers[:count], self._vectors[:count], strict=True):
            vector.length = header.received
            header.control, header.control_length = self._control, _SEGMENT_SPACE

    def restore(self, count: int) -> None:
        """Give each message all of its room again."""
        for header, vector in zip(self._headers[:count], self._vectors[:count], strict=True):
            vector.length = self.size
            header.control, header.control_length = None, 0

    def fill(self, index: int, payload: bytes) -> None:
        """Set what a datagram holds; shorter payloads leave the rest as it is."""
        at = index * self.size
        self._payload[at : at + len(payload)] = payload

    def payload(self, index: int) -> bytes:
        at = index * self.size
        return bytes(self._payload[at : at + self.size])

    def send(self, descriptor: int, first: int, count: int) -> int:
        """How many of the datagrams the kernel took; 0 if its queue is full."""
        return self._call(_libc.sendmmsg, descriptor, first, count, socket.MSG_DONTWAIT)

    def receive(self, descriptor: int, flags: int = socket.MSG_DONTWAIT) -> int:
        """How many datagrams were there, up to `count`."""
        return self._call(_libc.recvmmsg, descriptor, 0, self.count, flags, None)

    def _call(
        self, function: ctypes._NamedFuncPointer, descriptor: int, first: int, *rest: object
    ) -> int:
        start = ctypes.byref(self._headers, first * ctypes.sizeof(_Header))
        done: int = function(descriptor, start, *rest)
        if done >= 0:
            return done
        number = ctypes.get_errno()
        # ECONNREFUSED reports on an earlier datagram; reading it has cleared it.
        if number in (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.EINTR):
            return 0
        raise OSError(number, os.strerror(number))


def _address(memory: bytearray) -> int:
    """The address of the memory, which is fixed as long as its size is."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET, host)
