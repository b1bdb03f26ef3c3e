"""The addresses of this node's interfaces, read through netlink, which takes only 1 ms."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from uproxy.host import netlink
from uproxy.host.announced_addresses import is_ours

_ADDRESS, _LOCAL, _BROADCAST, _FLAGS = 1, 2, 4, 8  # IFA_*
_TENTATIVE, _FAILED, _OPTIMISTIC = 0x40, 0x08, 0x04


class Interfaces(NamedTuple):
    """The addresses of all interfaces, loopback included; in canonical form."""

    addresses: frozenset[str] = frozenset()
    """Left out are addresses that uproxy announces: they are those of Services and come and go. So
    are link-local IPv6 addresses, which mean nothing without their zone, and addresses
    that cannot be bound, because the kernel is still looking for duplicates or has found one (RFC
    4862, 5.4)."""
    broadcast: frozenset[str] = frozenset()
    """Broadcast addresses of IPv4 networks: the last address of each, and the first, which
    older kernels treat as one too."""


async def read_interfaces() -> Interfaces:
    """Raises OSError."""
    return await asyncio.to_thread(_read_interfaces)


async def read_local_addresses() -> frozenset[str]:
    """The addresses of all interfaces. Raises OSError."""
    return (await read_interfaces()).addresses


def _read_interfaces() -> Interfaces:
    addresses, broadcast = set[str](), set[str]()
    for message in netlink.dump_addresses():
        if is_ours(message):
            continue
        _, length, flags, _, _ = netlink.ADDRESS.unpack_from(message)
        found = dict(netlink.attributes(message[netlink.ADDRESS.size :]))
        if _FLAGS in found:
            (flags,) = struct.unpack_from("=I", found[_FLAGS])
        addresses.update(_own(found, flags))
        broadcast.update(_broadcast(found, length))
    return Interfaces(frozenset(addresses), frozenset(broadcast))


def _own(found: Mapping[int, memoryview], flags: int) -> Iterator[str]:
    # On a point-to-point link IFA_ADDRESS is the peer; IFA_LOCAL is ours where it exists.
    address = found.get(_LOCAL) or found.get(_ADDRESS)
    unusable = flags & _FAILED or flags & (_TENTATIVE | _OPTIMISTIC) == _TENTATIVE
    if address and not unusable:
        text = str(ipaddress.ip_address(bytes(address)))
        if not text.startswith("fe80:"):
            yield text


def _broadcast(found: Mapping[int, memoryview], length: int) -> Iterator[str]:
    address = found.get(_ADDRESS, b"")
    if len(address) != 4 or length >= 31:  # RFC 3021: two hosts, no broadcast.
        return
    network = ipaddress.IPv4Network((bytes(address), length), strict=False)
    yield str(network.network_address)
    yield str(network.broadcast_address)
    if _BROADCAST in found:
        yield str(ipaddress.ip_address(bytes(found[_BROADCAST])))
