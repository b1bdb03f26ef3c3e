"""Filters for sockets, so that only what matters wakes the process.

They are programs of the classic BPF (kernel documentation, networking/filter.rst). On a packet
socket they see a frame from its Ethernet header on, on a netlink socket a message from its header.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection
from typing import Final

from uproxy.host import netlink
from uproxy.host.frames import ICMPV6, NEIGHBOUR_ADVERTISEMENT

_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter
_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x30, 0x28, 0x20, 0x15, 0x06
_LOAD_NUMBER, _LOAD_X, _COPY_TO_X, _LOAD_BYTE_AT_X = 0x00, 0x01, 0x07, 0x50
_FIND_ATTRIBUTE: Final = 0xFFFFF000 + 12
"""SKF_AD_OFF + SKF_AD_NLATTR. To load this is to look for the netlink attribute of type X from
offset A on; the result is its offset, or 0."""
_PACKET_TYPE, _INTERFACE = 0xFFFFF000 + 4, 0xFFFFF000 + 8
"""SKF_AD_OFF + SKF_AD_PKTTYPE and SKF_AD_IFINDEX. To load them is to ask to whom the frame was
sent, and for which interface it is."""
_SENDER, _NEXT_HEADER, _TYPE, _TARGET_END = 14 + 14, 14 + 6, 14 + 40, 14 + 40 + 8 + 12
"""Offsets: the sender's address of an ARP message; of a neighbour advertisement without extension
headers, the header that follows, the type, and the last four bytes of the target."""
_WHOLE: Final = 0x7FFFFFFF
"""How many bytes to pass; this is more than there are. A netlink message must not be cut."""
_MOST: Final = 256
"""Addresses that a filter compares. Each takes two instructions, of which the kernel lets an
unprivileged amount of memory have some thousands (net.core.optmem_max, 20 KiB before Linux 6.7).
With more addresses, frames about all others wake the process too."""
_SO_ATTACH_FILTER: Final = 26  # Not in Python's socket module.


def arp_filter(addresses: Collection[str], index: int) -> bytes:
    """Passes the ARP messages to an interface whose sender says that it has one of the
    addresses."""
    found = [socket.inet_aton(each) for each in addresses]
    return _received_by(index) + _accept_any(_SENDER, found)


def advertisement_filter(addresses: Collection[str], index: int) -> bytes:
    """Passes neighbour advertisements to an interface whose target ends like one of the
    addresses."""
    ends = sorted({socket.inet_pton(socket.AF_INET6, each)[12:] for each in addresses})
    return (
        _received_by(index)
        + _test(_LOAD_BYTE, _NEXT_HEADER, ICMPV6)
        + _test(_LOAD_BYTE, _TYPE, NEIGHBOUR_ADVERTISEMENT)
        + _accept_any(_TARGET_END, ends)
    )


def address_notice_filter() -> bytes:
    """Passes the notices of rtnetlink, but those that an announced address of ours has been put on
    an interface or renewed, which would come twice a second for each of them."""
    attributes = netlink.HEADER.size + netlink.ADDRESS.size
    # What a filter loads is in network byte order, and the messages are in that of the machine.
    kind = int.from_bytes(struct.pack("=H", netlink.NEW_ADDRESS))
    return b"".join(
        (
            _step(_LOAD_HALF, 4),
            _step(_JUMP_EQUAL, kind, if_so=1),
            _step(_RETURN, _WHOLE),
            _step(_LOAD_X, netlink.ADDRESS_PROTOCOL),
            _step(_LOAD_NUMBER, attributes),
            _step(_LOAD_WORD, _FIND_ATTRIBUTE),
            _step(_JUMP_EQUAL, 0, if_not=1),
            _step(_RETURN, _WHOLE),
            _step(_COPY_TO_X, 0),
            _step(_LOAD_BYTE_AT_X, netlink.ATTRIBUTE.size),
            _step(_JUMP_EQUAL, netlink.OUR_PROTOCOL, if_not=1),
            _step(_RETURN, 0),
            _step(_RETURN, _WHOLE),
        )
    )


def attach(sock: socket.socket, program: bytes) -> None:
    """Use a filter from now on, in the place of the one before. Raises OSError."""
    code = ctypes.create_string_buffer(program, len(program))
    count = len(program) // _INSTRUCTION.size
    # struct sock_fprog, whose pointer is aligned as the machine likes it.
    description = struct.pack("@HP", count, ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, description)


def _accept_any(offset: int, words: Collection[bytes]) -> bytes:
    if len(words) > _MOST:
        return _step(_RETURN, _WHOLE)
    tests = (
        _step(_JUMP_EQUAL, int.from_bytes(each), if_not=1) + _step(_RETURN, _WHOLE)
        for each in words
    )
    return _step(_LOAD_WORD, offset) + b"".join(tests) + _step(_RETURN, 0)


def _received_by(index: int) -> bytes:
    """Drops what the kernel takes for frames to others, although a packet socket gets them: those
    of a VLAN that this machine is not in, and those that are for another interface on top of this
    one, which may be in another VLAN."""
    return (
        _step(_LOAD_WORD, _PACKET_TYPE)
        + _step(_JUMP_EQUAL, socket.PACKET_OTHERHOST, if_not=1)
        + _step(_RETURN, 0)
        + _test(_LOAD_WORD, _INTERFACE, index)
    )


def _test(load: int, offset: int, value: int) -> bytes:
    """Drops the frame unless the value is there."""
    return _step(load, offset) + _step(_JUMP_EQUAL, value, if_so=1) + _step(_RETURN, 0)


def _step(code: int, value: int, *, if_so: int = 0, if_not: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_so, if_not, value)
