"""Connections of HTTP clients: how many there may be, and how long they may dawdle.

Whoever reaches a health port may open connections and say nothing. Their descriptors would be
missing where Services are opened, so servers share a room of a few dozen, in which the connection
that has been idle for the longest makes place for a new one: a probe is served in a millisecond,
also during a flood.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final, NamedTuple, TypeVar, cast

from aiohttp import StreamReader, web

_LINGERING_TIME: Final = 1.0
"""Seconds to read on, and discard, when a request's body was not asked for."""
_KEEPALIVE_TIMEOUT: Final = 75.0
"""Seconds that a connection may idle. Probes and scrapes come more often, the rest is a leak."""

Response = TypeVar("Response", bound=web.StreamResponse)

_log = logging.getLogger(__name__)


class Limits(NamedTuple):
    """Seconds; others than the default are for tests."""

    first_request: float = 10.0
    """Until the first request is there as a whole, but for its body."""
    writing: float = 60.0
    """That a client may take to read an answer which does not fit into its socket buffer. The
    longest, of 10,000 Services, comes over a slow way in that time."""


class Room:
    """What connections of some servers have in common: their number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[Connection, None] = {}
        """The one that was active last is the last."""

    def __len__(self) -> int:
        return len(self._open)

    @property
    def crowded(self) -> bool:
        """Whether connections without a request under way should be closed."""
        return 2 * len(self._open) > self._most

    def __repr__(self) -> str:
        return f"<Room {len(self._open)} of {self._most}>"

    def enter(self, connection: Connection) -> None:
        """A new one; where there are too many, an idle one goes, or else the new one."""
        self._open[connection] = None
        if len(self._open) > self._most:
            leaving = next(each for each in self._open if not each.busy)
            # Its end is told in the loop's next turn; its place is free now.
            self.leave(leaving)
            leaving.cut()

    def active(self, connection: Connection) -> None:
        """It has been used just now."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def leave(self, connection: Connection) -> None:
        self._open.pop(connection, None)


class Connection(web.RequestHandler):
    """aiohttp's, with an end to what it would wait for without end."""

    __slots__ = ("_body", "_limits", "_patience", "_room", "_wire", "busy")

    def __init__(
        self, server: web.Server, room: Room, limits: Limits, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            lingering_time=_LINGERING_TIME,
            keepalive_timeout=_KEEPALIVE_TIMEOUT,
            # Bodies are thrown away, so there is no point in unpacking them.
            auto_decompress=False,
        )
        self.busy = False
        """Whether an answer is being made."""
        self._body: StreamReader | None = None
        """Of the request that was answered last."""
        self._room = room
        self._limits = limits
        self._wire: asyncio.Transport | None = None
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        super().connection_made(transport)
        self._wait_for(self._limits.first_request)
        self._room.enter(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._no_longer_wait()
        self._room.leave(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for(self._limits.writing)

    def resume_writing(self) -> None:
        self._no_longer_wait()
        super().resume_writing()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Nonsense from a client is not an error of uproxy, and no operator needs to see it."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        _log.debug("a bad request from %s: %s", request.remote, message)
        response = web.Response(status=400, text="this is not an HTTP request\n")
        response.force_close()
        return response

    async def answer(self, request: web.BaseRequest, answer: Awaitable[Response]) -> Response:
        """Answer the request, and note meanwhile that the connection is not idle."""
        self._no_longer_wait()
        self.busy, self._body = True, request.content
        try:
            response = await answer
            if self._room.crowded:
                response.force_close()
            return response
        finally:
            self.busy = False
            self._room.active(self)

    def cut_if_dawdling(self) -> None:
        """End it where a client was answered and does not send the rest of its request, which
        nobody wants: that must not hold up the end of a server."""
        if self._body is not None and not self._body.is_eof() and not self.busy:
            self.cut()

    def cut(self) -> None:
        """End it now: a client that reads nothing must not keep what is left to be sent."""
        if self._wire is not None:
            self._wire.abort()

    def _wait_for(self, seconds: float) -> None:
        self._no_longer_wait()
        self._patience = asyncio.get_running_loop().call_later(seconds, self.cut)

    def _no_longer_wait(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
