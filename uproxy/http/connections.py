"""Connections of HTTP clients: how many there may be, and how long they may take.

Any client that reaches a health port may open connections and send nothing. Services would then
lack the descriptors, so servers have a limit of a few dozen connections. At the limit, the
connection that has been idle for the longest is closed in favour of a new one: a probe is answered
within a millisecond, even during a flood.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final, NamedTuple, TypeVar, cast

from aiohttp import StreamReader, web

_LINGERING_TIME: Final = 1.0
"""Seconds for which the rest of a request's body is read and discarded after the answer."""
_KEEPALIVE_TIMEOUT: Final = 75.0
"""Seconds that a connection may be idle. Probes and scrapes come more often; others are leaks."""

Response = TypeVar("Response", bound=web.StreamResponse)

_log = logging.getLogger(__name__)


class Timeouts(NamedTuple):
    """Seconds; others than the default are for tests."""

    first_request: float = 10.0
    """Until the headers of the first request have arrived."""
    writing: float = 60.0
    """That a client may take to read an answer which does not fit into its socket buffer. That is
    enough for the longest one, of 10,000 Services, over a slow network."""


class ConnectionLimit:
    """How many connections the servers that share this object may have together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[Connection, None] = {}
        """In the order of their last use, the one used most recently last."""

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_nearly_full(self) -> bool:
        """Whether answers should ask clients to close their connections. Being asked, a client does
        not send its next request on a connection that is just being closed."""
        return 2 * len(self._open) > self._most

    def __repr__(self) -> str:
        return f"<ConnectionLimit {len(self._open)} of {self._most}>"

    def add(self, connection: Connection) -> None:
        """Add a new one. Where that is one too many, the connection that has been idle for the
        longest is closed. If all others are busy, that is the new one."""
        self._open[connection] = None
        if len(self._open) > self._most:
            leaving = next(each for each in self._open if not each.busy)
            # Now, since aiohttp reports its end only in the next iteration of the event loop.
            self.remove(leaving)
            leaving.abort()

    def used(self, connection: Connection) -> None:
        """A request on this connection was answered just now."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def remove(self, connection: Connection) -> None:
        self._open.pop(connection, None)


class Connection(web.RequestHandler):
    """aiohttp's protocol, with deadlines where aiohttp waits for ever."""

    __slots__ = ("_body", "_deadline", "_limit", "_stream", "_timeouts", "busy")

    def __init__(
        self,
        server: web.Server,
        limit: ConnectionLimit,
        timeouts: Timeouts,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            lingering_time=_LINGERING_TIME,
            keepalive_timeout=_KEEPALIVE_TIMEOUT,
            # Bodies are discarded, so there is no point in unpacking them.
            auto_decompress=False,
        )
        self.busy = False
        """Whether a request is being answered."""
        self._body: StreamReader | None = None
        """The body of the request that was answered last."""
        self._limit = limit
        self._timeouts = timeouts
        self._stream: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast("asyncio.Transport", transport)
        super().connection_made(transport)
        self._set_deadline(self._timeouts.first_request)
        self._limit.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_deadline()
        self._limit.remove(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_deadline(self._timeouts.writing)

    def resume_writing(self) -> None:
        self._stop_deadline()
        super().resume_writing()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not HTTP. It is the client's fault and no error of uproxy, so it
        is logged for debugging only."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        _log.debug("a bad request from %s: %s", request.remote, message)
        response = web.Response(status=400, text="this is not an HTTP request\n")
        response.force_close()
        return response

    async def answer(self, request: web.BaseRequest, answer: Awaitable[Response]) -> Response:
        """Answer a request, and mark the connection as busy meanwhile."""
        self._stop_deadline()
        self.busy, self._body = True, request.content
        try:
            response = await answer
            if self._limit.is_nearly_full:
                response.force_close()
            return response
        finally:
            self.busy = False
            self._limit.used(self)

    def abort_if_body_missing(self) -> None:
        """Close the connection if its client was answered and has not sent its whole body yet.
        aiohttp would wait for the body, which is discarded, and so delay the end of the server."""
        if self._body is not None and not self._body.is_eof() and not self.busy:
            self.abort()

    def abort(self) -> None:
        """Close the connection now, and discard what its client has not read yet."""
        if self._stream is not None:
            self._stream.abort()

    def _set_deadline(self, seconds: float) -> None:
        self._stop_deadline()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
