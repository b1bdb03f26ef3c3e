"""Serving HTTP on some addresses: start, stop, and try again when a port is taken."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from aiohttp import web

from uproxy.config import Address
from uproxy.core.route import Frontend
from uproxy.sockets import explain

Answering = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers any method and path."""

RETRY_INTERVAL = 5.0
"""Seconds between two attempts to listen, as in kube-proxy."""

_SHUTDOWN_TIMEOUT = 1.0
"""Seconds that requests in progress get when the server closes; idle connections get none.
All answers are short, so only a peer that stopped reading needs it."""

_LINGERING_TIME = 1.0
"""Seconds to read on, and discard, when a request's body was not asked for."""

_KEEPALIVE_TIMEOUT = 75.0
"""Seconds that a connection may idle. Probes and scrapes come more often, the rest is a leak."""

_log = logging.getLogger(__name__)


class ServeError(Exception):
    """An address that cannot be listened on now, with the reason, on one line."""


class HttpServer:
    """One application on all of its addresses, or on none.

    As a context manager it tries once to listen: read `reason` for the outcome. `retry()` goes on
    trying. Closing cuts idle connections at once, and twice is fine.
    """

    def __init__(
        self,
        target: web.Application | Answering,
        addresses: Sequence[Address],
        *,
        name: str,
        dual_stack: bool = False,
        retry_interval: float = RETRY_INTERVAL,
    ) -> None:
        """`name` is for logs. `dual_stack`: "::" takes IPv4 clients too, where the host can."""
        self._target = target
        self._addresses = addresses
        self._name = name
        self._dual_stack = dual_stack
        self._retry_interval = retry_interval
        self._runner: web.BaseRunner | None = None
        self.reason = ""
        """Why the last attempt failed; "" when it serves."""
        self.bound: tuple[Address, ...] = ()
        """Where it listens, with the real port for port 0; empty when it does not."""

    def __repr__(self) -> str:
        state = "listening" if self.bound else "closed"
        return f"<HttpServer {self._name} {state} {len(self._addresses)} addresses>"

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except ServeError as error:
            _log.warning("%s: %s", self._name, error)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Listen on every address. Raises ServeError, with none of them open."""
        if self._runner is not None:
            return
        try:
            sockets = _listening(self._addresses, dual_stack=self._dual_stack)
        except ServeError as error:
            self.reason = str(error)
            raise
        try:
            await self._serve(sockets)
        except BaseException:
            for sock in sockets:
                sock.close()
            await self.close()
            raise
        self.reason = ""

    async def retry(self) -> None:
        """Try until it listens, then return. For a task of the one who opened the server."""
        while self._runner is None:
            await asyncio.sleep(self._retry_interval)
            try:
                await self.open()
            except ServeError as error:
                _log.debug("%s: still %s", self._name, error)
            else:
                _log.info("%s: now listening on %s", self._name, self.bound)

    async def close(self) -> None:
        """Stop listening and cut the connections."""
        self.bound = ()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _serve(self, sockets: Sequence[socket.socket]) -> None:
        self._runner = _runner(self._target)
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock).start()
        self.bound = tuple(Address(*sock.getsockname()[:2]) for sock in sockets)


def _runner(target: web.Application | Answering) -> web.BaseRunner:
    if isinstance(target, web.Application):
        return web.AppRunner(
            target,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
            lingering_time=_LINGERING_TIME,
            keepalive_timeout=_KEEPALIVE_TIMEOUT,
        )
    server = web.Server(
        target,
        access_log=None,
        lingering_time=_LINGERING_TIME,
        keepalive_timeout=_KEEPALIVE_TIMEOUT,
    )
    return web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_TIMEOUT)


def _listening(addresses: Sequence[Address], *, dual_stack: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for address in addresses:
        try:
            sockets.append(_listen(address, dual_stack=dual_stack))
        except OSError as error:
            for sock in sockets:
                sock.close()
            raise ServeError(explain(error, Frontend("TCP", *address))) from error
    return sockets


def _listen(address: Address, *, dual_stack: bool) -> socket.socket:
    if ":" not in address.host:
        return socket.create_server(address)
    both = dual_stack and address.host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=socket.AF_INET6, dualstack_ipv6=both)
