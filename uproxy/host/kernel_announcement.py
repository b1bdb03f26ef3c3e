"""Announces an IPv4 address by means of the kernel's own questions, which needs no CAP_NET_RAW.

If a datagram from the address goes to a neighbour whose link-layer address the kernel does not
know, the kernel asks for that by an ARP request. All machines on the segment receive it, and those
that know an older place of its sender learn the new one (RFC 826). There is nothing like it for
IPv6: such a question goes to the group of the asked address only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable
from typing import Final

from uproxy.host.kernel_probe import DISCARD_PORT, forget_neighbour
from uproxy.host.segments import Segment

_TTL: Final = 1


def announce_by_kernel(address: str, interface: str, segment: Segment) -> bool:
    """Make the kernel send a request from an address that this node has; returns whether it may
    have done so."""
    other = _other_address(address, segment.subnets)
    if not other:
        return False
    with contextlib.suppress(OSError):
        forget_neighbour(other, segment.index)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_IP, socket.IP_TTL, _TTL)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            sock.bind((address, 0))
            sock.sendto(b"", (other, DISCARD_PORT))
            return True
    return False


def _other_address(address: str, subnets: Iterable[str]) -> str:
    """An address in the same subnet, which no machine has to have: the last one, or the one before
    it. "" if no subnet is known, as for every IPv6 address."""
    own = ipaddress.ip_address(address)
    for subnet in map(ipaddress.ip_network, subnets):
        if own.version == subnet.version == 4 and own in subnet and subnet.prefixlen < 30:
            last = subnet.broadcast_address - 1
            return str(last if last != own else last - 1)
    return ""
