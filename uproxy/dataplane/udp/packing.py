"""How addresses, control data and messages of datagrams lie in the memory that io_uring is given.

A buffer that a multishot IORING_OP_RECVMSG has filled for a listener looks like this
(io_uring_prep_recvmsg_multishot(3)); the room for name and control data is always as large as the
struct msghdr of the operation says, however much of it the kernel uses:

    0          16             16 + name            16 + name + control
    | recvmsg_out | sockaddr_in(6) | cmsghdr, in(6)_pktinfo | room  | the datagram, or several
                                     (wildcard listeners only)

If several datagrams have come as one message (UDP_GRO), a struct cmsghdr with the length of each
comes first in the control data, and an in(6)_pktinfo behind it; the room is for that. What the
connected socket of a flow receives looks the same, without a name and an in(6)_pktinfo.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from uproxy.dataplane.udp.keys import Address, Key
from uproxy.net.pktinfo import Control

RECVMSG_OUT: Final = 16
"""Bytes of struct io_uring_recvmsg_out."""
PAYLOAD_LENGTH: Final = struct.Struct("=8xI")
"""Its third field, behind the lengths of name and control data."""

HEADER: Final = struct.Struct("=QQQQQQQ")
"""struct msghdr: name and its length, vectors and their number, control data and its length, flags.
An int beside 4 bytes of padding counts as 8, which is right on little-endian machines only."""
MESSAGE: Final = struct.Struct("=QQQQQQQQQ")
"""struct msghdr, and behind it the only struct iovec that it points to: address and length."""

NAME_V4: Final = 16
NAME_V6: Final = 28
"""Bytes of struct sockaddr_in and sockaddr_in6."""
NAME_ROOM: Final = 32
"""Room for either, with what follows aligned to 8 bytes, as struct cmsghdr has to be."""
_V4: Final = 8
"""Bytes of a struct sockaddr_in that are not always zero: family, port, address."""
_CMSG: Final = 16
"""Bytes of struct cmsghdr: length, level and type."""
CONTROL_V4: Final = _CMSG + 16
CONTROL_V6: Final = _CMSG + 24
"""Room for a struct cmsghdr, and struct in_pktinfo or in6_pktinfo, rounded up to 8 bytes."""

MERGED: Final = _CMSG + 8
"""Room for a struct cmsghdr and the length of the datagrams that have come in one message, an
int."""
SEGMENT_LENGTH: Final = struct.Struct(f"={_CMSG}xI")
"""That int, from the beginning of the control data."""
REPLY_BEGIN: Final = RECVMSG_OUT + MERGED
"""Where a reply begins in its buffer."""

LOCAL_V4: Final = 4
"""Where a wildcard listener finds the local address in the room for control data, counted in units
of 8 bytes from the beginning of the name: behind the name and the struct cmsghdr comes a struct
in_pktinfo, whose first 8 bytes are an interface and ipi_spec_dst. For a broadcast, that is the
address to reply from, which ipi_addr is not."""
LOCAL_V6: Final = _CMSG
"""The same from the end of the name, in bytes: struct in6_pktinfo begins with the address."""


def split_key(key: Key) -> tuple[bytes, bytes]:
    """A client's struct sockaddr_in, without its zeros, or sockaddr_in6; and the address that it
    has sent to, which only wildcard listeners have in their keys."""
    if isinstance(key, int):
        packed = key.to_bytes(_V4 + 4, "little")
        return packed[:_V4], packed[_V4:]
    assert isinstance(key, bytes)
    return key[:NAME_V6], key[NAME_V6:]


def client_of(name: bytes) -> Address:
    """The client that a struct sockaddr_in or sockaddr_in6 describes."""
    family, port = struct.unpack_from("=H", name)[0], int.from_bytes(name[2:4], "big")
    if family == socket.AF_INET:
        return socket.inet_ntop(family, name[4:8]), port
    # Port and addresses are in network order, but the scope is in the machine's.
    scope = int.from_bytes(name[24:28], "little" if struct.pack("=H", 1)[0] else "big")
    return socket.inet_ntop(family, name[8:24]), port, 0, scope


def packed_control(control: Control) -> bytes:
    """Ancillary data as it lies in memory: each item behind a struct cmsghdr."""
    return b"".join(
        struct.pack("=Qii", _CMSG + len(data), level, kind) + data for level, kind, data in control
    )
