"""Notice of changes of this machine's network, through netlink.

What a notice says is ignored, because notices may be lost when there are many; the new state has to
be read. Nor are notices read before a caller waits for the next one: on a router, a hundred
thousand may come at once. Addresses that we announce ourselves give no notice, since each of them
is renewed twice a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import ClassVar, Final, Self

from uproxy.host import socket_filters

log = logging.getLogger(__name__)

_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 0x1, 0x10, 0x40, 0x100, 0x400
"""RTMGRP_*"""
_QUEUE: Final = 65536
"""Bytes of the queue of notices. When it is full, the next read fails, which is notice as well."""


class ChangeMonitor:
    """Says when something has changed.

    Where the kernel sends no notice (gVisor does not), `wait` is only a timer.
    """

    groups: ClassVar[int]
    """The multicast groups of rtnetlink that give notice."""
    what: ClassVar[str]

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._socket: socket.socket | None = None

    async def __aenter__(self) -> Self:
        try:
            self._socket = _subscribed(self.groups)
        except OSError as error:
            log.info(
                "cannot subscribe to changes of %s: %s; polling them instead", self.what, error
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    async def wait(self, at_most: float) -> bool:
        """Wait until something has changed since the last call, or `at_most` seconds have passed;
        returns whether something has changed."""
        sock, loop = self._socket, asyncio.get_running_loop()
        if sock is not None:
            loop.add_reader(sock.fileno(), self._noticed, sock)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                await self._changed.wait()
        changed = self._changed.is_set()
        self._changed.clear()
        if sock is not None:
            loop.remove_reader(sock.fileno())
            _drain(sock)
        return changed

    def _noticed(self, sock: socket.socket) -> None:
        self._changed.set()
        asyncio.get_running_loop().remove_reader(sock.fileno())


class AddressMonitor(ChangeMonitor):
    """Says when addresses of interfaces come or go."""

    groups = _IPV4_ADDRESS | _IPV6_ADDRESS
    what = "addresses"


class SegmentMonitor(ChangeMonitor):
    """Says when interfaces change, or their addresses come or go."""

    groups = _LINK | _IPV4_ADDRESS | _IPV6_ADDRESS
    what = "interfaces"


class RouteMonitor(ChangeMonitor):
    """Says when routes come or go, or an interface changes."""

    groups = _LINK | _IPV4_ROUTE | _IPV6_ROUTE
    what = "routes"


def _subscribed(groups: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
        with contextlib.suppress(OSError):  # Then there are notices too many, and none too few.
            socket_filters.attach(sock, socket_filters.address_notice_filter())
        sock.bind((0, groups))
    except OSError:
        sock.close()
        raise
    return sock


def _drain(sock: socket.socket) -> None:
    # OSError: the queue is empty (EAGAIN), or notices were lost (ENOBUFS).
    with contextlib.suppress(OSError):
        while sock.recv(65536):
            pass
