"""Reading one watch: from the chunks of a response to events, and when to give the watch up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from uproxy.apiserver.request import Response
from uproxy.sources.kubernetes.timing import Timing
from uproxy.sources.kubernetes.verdict import RequestFailed, Verdict, judge
from uproxy.sources.kubernetes.watch_format import (
    Event,
    LineBuffer,
    MalformedAnswer,
    read_event,
    read_failure,
)

_NO_WATCH_LIST: Final = Verdict(relist=True, expected=True, no_watch_list=True)


class _Deadline(NamedTuple):
    at: float
    missed: RequestFailed
    """Raised when nothing has come by then."""


class WatchStream:
    """The events of one watch.

    A watch that begins with all objects (`initial`) is read under other limits until
    `list_complete` is called: what goes wrong before that may mean that the server does not support
    WatchList at all.
    """

    def __init__(
        self,
        response: Response,
        timing: Timing,
        longest: float,
        *,
        initial: bool,
        resumed: bool = False,
    ) -> None:
        """`longest`: seconds after which the watch is given up unless the server has ended it.
        `resumed`: it goes on from where an earlier watch was, and not from a list."""
        self._response = response
        self._timing = timing
        self._longest = longest
        self._initial = initial
        self._lines = LineBuffer()
        self._silent = resumed
        """Whether no event has come since the watch was resumed."""

    def list_complete(self) -> None:
        """All initial events have come."""
        self._initial = False

    async def events(self) -> AsyncIterator[Event]:
        """All events until the server ends the watch. Raises RequestFailed, MalformedAnswer and
        ApiUnreachable."""
        loop, lines = asyncio.get_running_loop(), self._lines
        began = heard = loop.time()
        while chunk := await self._chunk(self._deadline(began, heard, loop.time())):
            for line in self._split(chunk):
                yield self._event(line)
                # Only whole events count as a sign of life: bytes without an end could keep a watch
                # waiting for ever. And the time is taken after the event was handled, because the
                # server is not to blame for what that takes.
                heard, self._silent = loop.time(), False
        if self._initial and lines.cut:
            yield self._event(lines.rest)  # A list may come without a line feed at its end.
        if self._initial:
            raise RequestFailed(
                "the server ended a watch before its list was complete", _NO_WATCH_LIST
            )
        if lines.cut:
            raise RequestFailed("a watch ended in the middle of an event", Verdict())
        if loop.time() - began < self._timing.shortest_watch:
            raise RequestFailed("the server ended a watch at once", Verdict(expected=True))

    def _deadline(self, began: float, heard: float, now: float) -> _Deadline:
        timing = self._timing
        if self._initial:
            at = min(now + timing.initial_silence, began + timing.initial_list)
            reason = "a watch did not mark the end of its list in time"
            return _Deadline(at, RequestFailed(reason, _NO_WATCH_LIST))
        if began + self._longest < heard + timing.silence:
            reason = "the server did not end a watch when its time was up"
            return _Deadline(began + self._longest, RequestFailed(reason, Verdict()))
        reason = f"a watch has received nothing for {timing.silence:g} s"
        verdict = Verdict(expected=True, silent=self._silent)
        return _Deadline(heard + timing.silence, RequestFailed(reason, verdict))

    async def _chunk(self, deadline: _Deadline) -> bytes:
        try:
            async with asyncio.timeout_at(deadline.at):
                return await self._response.chunk()
        except TimeoutError:
            raise deadline.missed from None

    def _split(self, chunk: bytes) -> Sequence[bytes]:
        try:
            return self._lines.feed(chunk)
        except MalformedAnswer as error:
            if not self._initial:
                raise
            # Probably a whole list in one line: the server has ignored `watch` or the parameters
            # of WatchList, and the list is longer than any event.
            raise RequestFailed(str(error), _NO_WATCH_LIST) from None

    def _event(self, line: bytes) -> Event:
        event = read_event(line)
        if event is None:
            raise RequestFailed("a list was sent instead of a watch", _NO_WATCH_LIST)
        if event.type == "ERROR":
            # The response had begun with 200 before the server found out; 410 comes this way when
            # the history is cut off while the watch is being set up.
            failure = read_failure(event.obj)
            raise RequestFailed(str(failure), judge(failure, initial=self._initial))
        return event
