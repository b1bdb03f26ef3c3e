"""Which local address a datagram came to, and how a reply leaves from there.

On a socket that is bound to the wildcard address, the kernel chooses the source of a reply: the
address of the interface that leads to the client. A client drops a reply from an address to which
it has not sent anything. So the kernel is asked to say with each datagram to which address it was
sent, and each reply names the address that it leaves from (IP_PKTINFO in ip(7), IPV6_RECVPKTINFO in
ipv6(7)).

A socket that is bound to one address needs none of this: its replies leave from that address.
"""

from __future__ import annotations

import socket

Control = list[tuple[int, int, bytes]]
"""Ancillary data as recvmsg returns and sendmsg takes it: level, type and contents of each item."""

SPACE = socket.CMSG_SPACE(20)
"""Bytes of room that recvmsg needs for it: for struct in6_pktinfo, and in_pktinfo is smaller."""

IP_PKTINFO = 8
"""Python's socket module has it from 3.14 on."""


def enable(sock: socket.socket) -> None:
    """Let recvmsg say where each datagram came to. Raises OSError.

    It has to be called before the socket is bound. The kernel notes the address on arrival, and
    only if it is asked to: IP_PKTINFO says 0.0.0.0 for a datagram that was there before. One may
    well arrive before a worker has the socket.
    """
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def local_address(control: Control) -> bytes:
    """The local address, in network order; b"" if the kernel did not say."""
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            # ipi_spec_dst. For a broadcast this is the address to reply from; ipi_addr, which
            # follows, is the one that the client has sent to, and cannot be a source.
            return data[4:8]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return data[:16]
    return b""


def reply_from(local: bytes) -> Control:
    """What lets sendmsg send from that address. No interface is named (0), so the route to the
    client decides: the interface that a datagram came in by need not lead back."""
    if len(local) == 4:
        return [(socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + local + bytes(4))]
    if len(local) == 16:
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local + bytes(4))]
    return []
