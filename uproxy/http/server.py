"""Serving HTTP on some addresses: start, stop, and try again when a port is taken."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Self, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from uproxy.config.settings import Address
from uproxy.core.backoff import Backoff
from uproxy.core.protocols import TCP
from uproxy.core.route import Frontend
from uproxy.http.connections import Connection, ConnectionLimit, Timeouts
from uproxy.net.listening import explain, is_taken

CreateServer = Callable[..., socket.socket]
"""As socket.create_server."""
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers a request of any method and path."""

_RETRY = Backoff(initial=0.5, maximum=5.0, jitter=0.2)
"""Between two attempts to listen; kube-proxy tries every 5 s."""

_SHUTDOWN_TIMEOUT = 1.0
"""Seconds that requests in progress get when the server closes; idle connections get none. All
answers are short, so only a client that has stopped reading takes as long."""

_CONNECTIONS = 32
"""Connections of a server at a time, unless it shares a limit with others."""

_BACKLOG = 512
"""Connections that may wait to be accepted; they take no descriptor. A flood fills any queue. When
a short queue is full, a probe has to send its SYN again, a second later; in this one it waits for
0.1 s."""

_TIMEOUTS = Timeouts()

_log = logging.getLogger(__name__)


class ServeError(Exception):
    """An address that cannot be listened on now, with the reason, on one line."""


class HttpServer:
    """One application on all of its addresses, or on none.

    As a context manager it tries once to listen; `reason` has the outcome. `retry()` goes on
    trying. Closing it closes idle connections at once. It may be closed twice.
    """

    def __init__(
        self,
        target: web.Application | Answer,
        addresses: Sequence[Address],
        *,
        name: str,
        dual_stack: bool = False,
        retry: Backoff = _RETRY,
        limit: ConnectionLimit | None = None,
        timeouts: Timeouts = _TIMEOUTS,
        create_server: CreateServer = socket.create_server,
    ) -> None:
        """`name` is for logs. `dual_stack`: "0.0.0.0" and "::" both mean the addresses of both
        families, as far as the host has them. `limit`: of connections, for servers that share one.
        `create_server` makes a listening socket."""
        self._target = target
        self._limit = ConnectionLimit(_CONNECTIONS) if limit is None else limit
        self._timeouts = timeouts
        self._addresses = addresses
        self.name = name
        self._dual_stack = dual_stack
        self._retry = retry
        self._create_server = create_server
        self._runner: web.BaseRunner | None = None
        self.reason = ""
        """Why the last attempt failed; "" when it serves."""
        self.bound: tuple[Address, ...] = ()
        """Where it listens, with the real port for port 0; empty when it does not."""

    def __repr__(self) -> str:
        state = "listening" if self.bound else "closed"
        return f"<HttpServer {self.name} {state} {len(self._addresses)} addresses>"

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except ServeError as error:
            # Ports that others have are told by `control.port_conflicts`, all at once.
            level = logging.DEBUG if is_taken(self.reason) else logging.WARNING
            _log.log(level, "%s: %s", self.name, error)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Listen on every address. Raises ServeError, with none of them open."""
        if self._runner is not None:
            return
        try:
            sockets = _listening(self._addresses, self._create_server, dual_stack=self._dual_stack)
        except ServeError as error:
            self.reason = str(error)
            raise
        try:
            await self._serve(sockets)
        except BaseException as error:
            for sock in sockets:
                sock.close()
            await self.close()
            if not isinstance(error, OSError):
                raise
            self.reason = error.strerror or str(error)
            raise ServeError(self.reason) from error
        self.reason = ""

    async def retry(self) -> None:
        """Try until it listens, then return. Run it in a task of whatever opened the server."""
        attempt = 0
        while self._runner is None:
            attempt += 1
            await asyncio.sleep(self._retry.delay(attempt, random.random()))
            try:
                await self.open()
            except ServeError as error:
                _log.debug("%s: still %s", self.name, error)
            else:
                _log.info("%s: now listening on %s", self.name, self.bound)

    async def close(self) -> None:
        """Stop listening, and close all connections."""
        self.bound = ()
        runner, self._runner = self._runner, None
        if runner is not None:
            for connection in runner.server.connections if runner.server is not None else ():
                cast("Connection", connection).abort_if_body_missing()
            await runner.cleanup()

    async def _serve(self, sockets: Sequence[socket.socket]) -> None:
        self._runner = _runner(self._target)
        await self._runner.setup()
        for sock in sockets:
            await _Site(self._runner, sock, self._limit, self._timeouts).start()
        self.bound = tuple(Address(*sock.getsockname()[:2]) for sock in sockets)


class _Site(web.BaseSite):
    """A listening socket of which the number of connections is limited."""

    def __init__(
        self,
        runner: web.BaseRunner,
        sock: socket.socket,
        limit: ConnectionLimit,
        timeouts: Timeouts,
    ) -> None:
        super().__init__(runner, backlog=_BACKLOG)
        self._sock = sock
        self._limit = limit
        self._timeouts = timeouts

    @property
    def name(self) -> str:
        return str(self._sock.getsockname())

    async def start(self) -> None:
        await super().start()
        loop, server = asyncio.get_running_loop(), self._runner.server
        assert server is not None

        def connection() -> Connection:
            return Connection(server, self._limit, self._timeouts, loop)

        self._server = await loop.create_server(connection, sock=self._sock, backlog=_BACKLOG)


def _runner(target: web.Application | Answer) -> web.BaseRunner:
    if isinstance(target, web.Application):
        return web.AppRunner(_with_busy_mark(target), shutdown_timeout=_SHUTDOWN_TIMEOUT)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return await _connection(request).answer(request, target(request))

    return web.ServerRunner(web.Server(answer), shutdown_timeout=_SHUTDOWN_TIMEOUT)


def _with_busy_mark(app: web.Application) -> web.Application:
    """The application, with a middleware that marks connections as busy."""
    if _mark_busy not in app.middlewares:
        app.middlewares.insert(0, _mark_busy)
    return app


@web.middleware
async def _mark_busy(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await _connection(request).answer(request, handler(request))


def _connection(request: web.BaseRequest) -> Connection:
    connection = request.protocol
    assert isinstance(connection, Connection)
    return connection


def _listening(
    addresses: Sequence[Address], create_server: CreateServer, *, dual_stack: bool
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for address in addresses:
        try:
            sockets.append(_listen(address, create_server, dual_stack=dual_stack))
        except OSError as error:
            for sock in sockets:
                sock.close()
            raise ServeError(explain(error, Frontend(TCP, *address))) from error
    return sockets


def _listen(address: Address, create_server: CreateServer, *, dual_stack: bool) -> socket.socket:
    if dual_stack and address.host in ("0.0.0.0", "::"):
        # As a listener of Go, and so of kube-proxy. Where nodes have IPv6 alone, kubelet probes an
        # IPv6 address; where the kernel has none, nothing could be bound to "::".
        if socket.has_dualstack_ipv6():
            wildcard = Address("::", address.port)
            return create_server(wildcard, family=socket.AF_INET6, dualstack_ipv6=True)
        return create_server(Address("0.0.0.0", address.port))
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return create_server(address, family=family)
