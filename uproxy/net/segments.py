"""Several datagrams in one call: UDP_SEGMENT and UDP_GRO (udp(7), Linux 4.18 and 5.0).

What is sent with UDP_SEGMENT is cut into datagrams of that size, of which the last may be shorter.
On its way through the kernel it is one packet, which the network card or the receiver cuts, so that
sixteen datagrams cost little more than one. A socket with UDP_GRO receives several datagrams of
one sender in the same form, and control data says how long each of them is.

The network sees the datagrams as if each had been sent by itself. But a segment is never sent in
fragments: the kernel refuses one that is longer than the path's MTU, and paths that cannot have
segments (IPsec; before Linux 6.11, devices without checksum offload).
"""

from __future__ import annotations

import errno
import socket
import struct
from _socket import socket as Socket
from contextlib import suppress
from typing import Final

SOL_UDP: Final = socket.IPPROTO_UDP
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104

MOST_SEGMENTS: Final = 64
"""Datagrams in one call (UDP_MAX_SEGMENTS; 128 since Linux 6.9)."""

MOST_BYTES: Final = 65_507
"""Bytes in one call: as many as an IPv4 packet has room for."""

REFUSALS: Final = frozenset({errno.EINVAL, errno.EIO, errno.EMSGSIZE})
"""Errors of a call with UDP_SEGMENT which mean that the path does not take such segments. One at a
time, the same datagrams can be sent."""


def segments_of(size: int) -> tuple[int, int, bytes]:
    """The control data with which sendmsg cuts what it sends into datagrams of that size."""
    return SOL_UDP, UDP_SEGMENT, struct.pack("=H", size)


def merge_received(sock: socket.socket | Socket) -> None:
    """Let a socket receive several datagrams in one message. Where the kernel refuses that, each
    goes on coming by itself."""
    with suppress(OSError):
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
