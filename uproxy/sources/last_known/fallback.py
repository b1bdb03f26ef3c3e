"""Between a source and the reconciler: keeps what the source says on disk, and falls back on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from uproxy.core.brief import brief
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.report.status import ObjectStatus
from uproxy.host.threads import run_to_completion
from uproxy.sources.last_known.snapshot import (
    FILE_NAME,
    Snapshot,
    SnapshotError,
    load,
    rfc3339,
    save,
)
from uproxy.sources.sink import Sink

log = logging.getLogger(__name__)

_GRACE = 2.0
"""Seconds that the source gets to list before the last-known state is served in its place. What it
lists is newer, so a start with an API server at hand should not pass through the old state."""

_PERIOD = 5.0
"""Seconds between two writes at least."""

_SHARE = 50
"""Two writes are apart by this many times what one takes, so that writing the state of a large
cluster, which changes all the time, takes 2 % of a core at most."""

_AT_ONCE = 100
"""Objects that are delivered before the event loop gets its turn."""


class FallbackSink(Sink, Protocol):
    """A sink that can be told that a source's objects are all there, though it has not listed."""

    def accept_last_known(self, source: str) -> None:
        """Take what was applied so far for everything, but take nothing away."""


class Pace(NamedTuple):
    """Seconds; others than the default are for tests."""

    grace: float = _GRACE
    period: float = _PERIOD


_PACE = Pace()


class LastKnownFallback:
    """A Sink around another one, for sources that deliver one kind of objects each.

    `run` delivers the file's content in place of sources that have not listed in time, and keeps
    the file up to date once all have. A directory that cannot be written, or a file that cannot
    be used, is told once and harms nothing.
    """

    def __init__(
        self,
        sink: FallbackSink,
        *,
        sources: Mapping[type[Object], str],
        directory: Path,
        node: str,
        objects: Callable[[], Sequence[Object]],
        pace: Pace = _PACE,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`objects` gives all that the sources have at present, `wall` Unix time in seconds."""
        self._sink = sink
        self._sources = sources
        self._unlisted = set(sources.values())
        self._path = directory / FILE_NAME
        self._node = node
        self._objects = objects
        self._pace = pace
        self._wall = wall
        self._listed = asyncio.Event()
        self._changed = asyncio.Event()
        self._trouble = ""
        self.serving_since: float | None = None
        """Unix time of the last-known state that is being served; None: what is served is new."""

    @property
    def notes(self) -> Sequence[str]:
        """What people should know about where the objects come from."""
        if self.serving_since is None:
            return ()
        since = rfc3339(self.serving_since)
        return (f"serving the last-known state of {since}: the API server has not answered yet",)

    def replace(self, source: str, objects: Sequence[Object]) -> None:
        self._sink.replace(source, objects)
        self._unlisted.discard(source)
        self._changed.set()
        if not self._unlisted:
            self._listed.set()
            if self.serving_since is not None:
                log.info("the API server has answered: its state replaces the last-known one")
                self.serving_since = None

    def apply(self, source: str, obj: Object) -> None:
        self._sink.apply(source, obj)
        self._changed.set()

    def remove(self, source: str, kind: type[Object], key: ObjectName) -> None:
        self._sink.remove(source, kind, key)
        self._changed.set()

    def complain(self, source: str, complaints: Sequence[ObjectStatus]) -> None:
        self._sink.complain(source, complaints)

    async def run(self) -> None:
        """Fall back and save, until cancelled; the last thing done then is to save what is new."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.grace):
                    await self._listed.wait()
            if not self._listed.is_set():
                await self._fall_back()
            await self._listed.wait()
            while True:
                await self._changed.wait()
                took = await self._save()
                await asyncio.sleep(max(self._pace.period, _SHARE * took))
        finally:
            if self._listed.is_set() and self._changed.is_set():
                await self._save()

    async def _fall_back(self) -> None:
        try:
            known = await asyncio.to_thread(load, self._path, node=self._node)
        except SnapshotError as error:
            log.warning("the last-known state is ignored: %s", error)
            return
        except Exception:
            log.exception("the last-known state is ignored")
            return
        if known is None:
            log.info("the API server has not answered yet, and no last-known state is there")
            return
        if await self._deliver(known.objects):
            self.serving_since = known.saved_at
            for source in self._unlisted:
                self._sink.accept_last_known(source)
            for note in self.notes:
                log.warning("%s", note)

    async def _deliver(self, objects: Sequence[Object]) -> bool:
        """Deliver for the sources that have not listed yet; returns whether there are any."""
        for start in range(0, len(objects), _AT_ONCE):
            for obj in objects[start : start + _AT_ONCE]:
                source = self._sources.get(type(obj))
                if source in self._unlisted:
                    self._sink.apply(source, obj)
            await asyncio.sleep(0)
        return bool(self._unlisted)

    async def _save(self) -> float:
        """Write the file; returns how many seconds that took."""
        self._changed.clear()
        snapshot = Snapshot(self._node, self._wall(), self._objects())
        began = time.monotonic()
        try:
            await run_to_completion(save, self._path, snapshot)
        except OSError as error:
            self._complain(f"{self._path}: {error.strerror}")
        except Exception as error:
            # Whatever it is: to go on serving matters more than to remember.
            log.debug("the state of the cluster cannot be kept", exc_info=True)
            self._complain(f"unexpected {type(error).__name__}: {brief(str(error))}")
        else:
            self._complain("")
        return time.monotonic() - began

    def _complain(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("the state of the cluster cannot be kept: %s", trouble)
        elif self._trouble and not trouble:
            log.info("the state of the cluster is kept again")
        self._trouble = trouble
