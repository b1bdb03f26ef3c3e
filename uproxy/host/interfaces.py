"""The addresses of this node's interfaces, and notice of changes, both through netlink.

What a notice says is ignored, because notices may be lost when there are many, and reading all
addresses takes only 1 ms.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Self

from uproxy.host import netlink

log = logging.getLogger(__name__)

_ADDRESS, _LOCAL, _BROADCAST, _FLAGS = 1, 2, 4, 8  # IFA_*
_TENTATIVE, _FAILED, _OPTIMISTIC = 0x40, 0x08, 0x04
_GROUPS: Final = 0x10 | 0x100
"""RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR."""


class Interfaces(NamedTuple):
    """The addresses of all interfaces, loopback included; in canonical form."""

    addresses: frozenset[str] = frozenset()
    """Left out are link-local IPv6 addresses, which mean nothing without their zone, and addresses
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


class AddressMonitor:
    """Says when addresses of interfaces come or go. The new state has to be read.

    Where the kernel sends no notice (gVisor does not), `wait` is only a timer.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._socket: socket.socket | None = None

    async def __aenter__(self) -> Self:
        try:
            self._socket = _subscribed()
        except OSError as error:
            log.info("cannot subscribe to changes of addresses: %s; polling them instead", error)
        else:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._drain, self._socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    async def wait(self, at_most: float) -> bool:
        """Wait until something has changed since the last call, or `at_most` seconds have passed;
        returns whether something has changed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                await self._changed.wait()
        changed = self._changed.is_set()
        self._changed.clear()
        return changed

    def _drain(self, sock: socket.socket) -> None:
        self._changed.set()
        # OSError: the queue is empty (EAGAIN), or notices were lost (ENOBUFS), which is notice too.
        with contextlib.suppress(OSError):
            while sock.recv(65536):
                pass


def _subscribed() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        sock.setblocking(False)
        sock.bind((0, _GROUPS))
    except OSError:
        sock.close()
        raise
    return sock


def _read_interfaces() -> Interfaces:
    addresses, broadcast = set[str](), set[str]()
    for message in netlink.dump_addresses():
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
