"""One open watch: it sends changes, and commits the faults that a test orders."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Literal

import msgspec
from aiohttp import web

from tests.fake_api.kinds import Kind
from tests.fake_api.selectors import Match
from tests.fake_api.store import ApiError, Change, Store

WatchList = Literal["served", "error-event", "bad-request", "plain-watch", "plain-list"]
"""How the server takes `sendInitialEvents`: as asked; an ERROR event of code 500 in an answer
200 (1.36 without RequestWatchProgress); 400; as if it were not there; as if it were a list."""

_CHUNK = 256 * 1024


class Closed(Exception):
    """The watch ends here."""


class Stalled(Exception):
    """The watch hangs from here on."""


class Watching:
    """A watch that a client has open."""

    def __init__(
        self, kind: Kind, match: Match, query: Mapping[str, str], request: web.Request, store: Store
    ) -> None:
        self.kind = kind
        self.query = query
        self.response = web.StreamResponse(headers={"Content-Type": "application/json"})
        self._request = request
        self._store = store
        self._match = match
        self._orders: asyncio.Queue[Callable[[Watching], Awaitable[None]] | None] = asyncio.Queue()
        self._version = 0

    def wake(self) -> None:
        """Something has changed."""
        self._orders.put_nowait(None)

    def order(self, act: Callable[[Watching], Awaitable[None]]) -> None:
        """Let the watch do something when it has sent what there is."""
        self._orders.put_nowait(act)

    async def run(self, bookmark_period: float, watch_list: WatchList, limit: float) -> None:
        """Serve until the client goes, timeoutSeconds are over, or an order ends it."""
        await self.response.prepare(self._request)
        seconds = min(limit, float(self.query.get("timeoutSeconds", 1800)))
        try:
            async with asyncio.timeout(seconds):
                await self._begin(watch_list)
                await self._follow(bookmark_period)
        except Stalled:
            await asyncio.Event().wait()
        except (TimeoutError, Closed, ConnectionError):
            pass
        with contextlib.suppress(ConnectionError):
            await self.response.write_eof()

    async def send(self, *events: tuple[str, bytes]) -> None:
        """Events of a type and an object as JSON."""
        for chunk in _chunks(line(*event) for event in events):
            await self.response.write(chunk)

    async def send_error(self, error: ApiError) -> None:
        await self.send(("ERROR", msgspec.json.encode(error.status())))

    async def bookmark(self, *, initial_end: bool = False) -> None:
        metadata: dict[str, object] = {"resourceVersion": str(self._version)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        bookmark = {
            "kind": self.kind.kind,
            "apiVersion": self.kind.api_version,
            "metadata": metadata,
        }
        await self.send(("BOOKMARK", msgspec.json.encode(bookmark)))

    async def initial(self) -> None:
        """Every object as ADDED."""
        items = self._store.items(self.kind).values()
        self._version = self._store.version
        await self.send(*(("ADDED", each.raw) for each in items if self._match(each.data)))

    async def cut(self, *, reset: bool) -> None:
        """Half a line, then the end of the stream."""
        for item in self._store.items(self.kind).values():
            half = line("MODIFIED", item.raw)
            await self.response.write(half[: len(half) // 2])
            break
        await (self.reset() if reset else self.close())

    async def close(self) -> None:
        """A clean end."""
        raise Closed

    async def reset(self) -> None:
        """A TCP reset."""
        transport = self._request.transport
        assert transport is not None
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        raise Closed

    async def stall(self) -> None:
        """Nothing any more, though the connection stays."""
        raise Stalled

    async def replay(self, count: int = 10) -> None:
        """The last changes once more, as if they were new."""
        first = max(self._store.version - count, 0)
        with contextlib.suppress(ApiError):
            seen = [change.seen_by(self._match) for change in self._of_kind(first)]
            await self.send(*((each[0], each[1].raw) for each in seen if each is not None))

    async def _begin(self, watch_list: WatchList) -> None:
        wanted = self.query.get("sendInitialEvents") in ("true", "True")
        if wanted and watch_list == "error-event":
            text = "required storage feature RequestWatchProgress is disabled"
            await self.send_error(ApiError(500, "InternalError", text))
            raise Closed
        version = self.query.get("resourceVersion", "")
        if version in ("", "0") or wanted:
            await self.initial()
            if wanted and watch_list == "served":
                await self.bookmark(initial_end=True)
        else:
            self._version = int(version)

    async def _follow(self, bookmark_period: float) -> None:
        bookmarks = self.query.get("allowWatchBookmarks") in ("true", "True", "1")
        while True:
            await self._send_changes()
            try:
                async with asyncio.timeout(bookmark_period if bookmarks else None):
                    act = await self._orders.get()
            except TimeoutError:
                if not self._ahead:
                    await self.bookmark()
                continue
            if act is not None:
                await self._send_changes()
                await act(self)

    @property
    def _ahead(self) -> bool:
        """Whether the watch was asked for from a version that this server has not reached, as its
        data were restored from a backup. Then a real server sends nothing at all, not even a
        bookmark, until it reaches that version."""
        return self._version > self._store.version

    async def _send_changes(self) -> None:
        if self._ahead:
            return
        version = self._store.version
        try:
            seen = [change.seen_by(self._match) for change in self._of_kind(self._version)]
        except ApiError as error:
            await self.send_error(error)
            raise Closed from None
        self._version = version
        await self.send(*((each[0], each[1].raw) for each in seen if each is not None))

    def _of_kind(self, version: int) -> list[Change]:
        return [change for change in self._store.since(version) if change.kind is self.kind]


def line(kind: str, raw: bytes) -> bytes:
    """An event as it is on the wire."""
    return b'{"type":"' + kind.encode() + b'","object":' + raw + b"}\n"


def _chunks(lines: Iterator[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    for each in lines:
        chunk += each
        if len(chunk) > _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)
