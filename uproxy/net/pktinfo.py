"""Which of our addresses a datagram came to, and how a reply leaves from there.

A socket bound to the wildcard address would let the kernel choose the source of replies, and a
client drops an answer from an address that it did not ask. Linux: ip(7), ipv6(7).
"""

from __future__ import annotations

import socket

Control = list[tuple[int, int, bytes]]
"""Ancillary data, as recvmsg gives and sendmsg takes it."""

SPACE = socket.CMSG_SPACE(20)
"""Bytes that recvmsg needs for it: struct in6_pktinfo; in_pktinfo is smaller."""

IP_PKTINFO = 8
"""In Python's socket module only from 3.14 on."""


def enable(sock: socket.socket) -> None:
    """Let recvmsg say where each datagram came to. Raises OSError."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def local_address(control: Control) -> bytes:
    """The local address, packed; b"" if the kernel did not say."""
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            return data[4:8]  # ipi_spec_dst: for a broadcast, the address to reply from.
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return data[:16]
    return b""


def reply_from(local: bytes) -> Control:
    """Lets sendmsg send from that address, through whatever interface leads to the client."""
    if len(local) == 4:
        return [(socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + local + bytes(4))]
    if len(local) == 16:
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local + bytes(4))]
    return []
