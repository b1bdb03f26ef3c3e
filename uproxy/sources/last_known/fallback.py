"""A sink between a source and the reconciler: it saves what the source delivers to disk, and
delivers that after a start until the source has listed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, TypeVarTuple

from uproxy.core.brief import brief
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.report.status import ObjectStatus
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

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_GRACE = 2.0
"""Seconds that the source has to list before the last-known state is served in its place. What it
lists is newer, so a start while an API server answers should not pass through the old state."""

_PERIOD = 5.0
"""Seconds between two writes, at least."""

_SHARE = 50
"""The pause between two writes is this many times as long as a write took. The state of a large
cluster changes all the time, and writing it should take 2 % of a core at most."""

_AT_ONCE = 100
"""Objects that are delivered before the event loop may run other tasks."""


class FallbackSink(Sink, Protocol):
    """A sink that can be told that all objects of a source are there although it has not listed."""

    def accept_last_known(self, source: str) -> None:
        """Treat what was applied so far as complete, but take nothing away because of that."""


class InThread(Protocol):
    """Makes a blocking call in a thread, which has ended when this returns or is cancelled."""

    async def __call__(
        self, act: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result: ...


class Load(Protocol):
    """Like `snapshot.load`."""

    def __call__(self, path: Path, *, node: str) -> Snapshot | None: ...


class Pace(NamedTuple):
    """Times in seconds. Values other than the defaults are for tests."""

    grace: float = _GRACE
    period: float = _PERIOD


_PACE = Pace()


class LastKnownFallback:
    """A sink around another one, for sources that deliver one kind of objects each.

    `run` delivers the file's content in place of sources that have not listed in time, and keeps
    the file up to date once all of them have listed. A directory that cannot be written, or a file
    that cannot be used, is logged once and harms nothing.
    """

    def __init__(
        self,
        sink: FallbackSink,
        *,
        sources: Mapping[type[Object], str],
        directory: Path,
        node: str,
        objects: Callable[[], Sequence[Object]],
        in_thread: InThread,
        load: Load = load,
        save: Callable[[Path, Snapshot], None] = save,
        pace: Pace = _PACE,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`sources`: the name of the source of each kind. `objects` returns all objects that the
        sources have at present, `wall` Unix time in seconds."""
        self._sink = sink
        self._sources = sources
        self._unlisted = set(sources.values())
        self._path = directory / FILE_NAME
        self._node = node
        self._objects = objects
        self._in_thread = in_thread
        self._load = load
        self._save_to = save
        self._pace = pace
        self._wall = wall
        self._listed = asyncio.Event()
        self._changed = asyncio.Event()
        self._trouble = ""
        self.serving_since: float | None = None
        """When the last-known state that is being served was saved (Unix time); None: what is
        served comes from the sources."""

    @property
    def notes(self) -> Sequence[str]:
        """What users should know about where the objects come from."""
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

    def report_errors(self, source: str, errors: Sequence[ObjectStatus]) -> None:
        self._sink.report_errors(source, errors)

    async def run(self) -> None:
        """Fall back and save, until cancelled. What is new then is saved before this ends."""
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
            known = await asyncio.to_thread(self._load, self._path, node=self._node)
        except SnapshotError as error:
            log.warning("the last-known state is ignored: %s", error)
            return
        except Exception:
            log.exception("the last-known state is ignored")
            return
        if known is None:
            log.info("the API server has not answered yet, and there is no last-known state")
            return
        if await self._deliver(known.objects):
            self.serving_since = known.saved_at
            for source in self._unlisted:
                self._sink.accept_last_known(source)
            for note in self.notes:
                log.warning("%s", note)

    async def _deliver(self, objects: Sequence[Object]) -> bool:
        """Deliver in place of the sources that have not listed yet; returns whether there are any.
        It is looked up for each portion, as a source may list in the middle of this: its objects
        are newer, and an older one applied after them would replace them."""
        for start in range(0, len(objects), _AT_ONCE):
            for obj in objects[start : start + _AT_ONCE]:
                source = self._sources.get(type(obj))
                if source in self._unlisted:
                    self._sink.apply(source, obj)
            await asyncio.sleep(0)
        return bool(self._unlisted)

    async def _save(self) -> float:
        """Write the file; returns how many seconds that took."""
        # Cleared before the objects are read, so that a change during the write causes another one.
        self._changed.clear()
        snapshot = Snapshot(self._node, self._wall(), self._objects())
        began = time.monotonic()
        try:
            # The thread ends even when this is cancelled. Otherwise it could replace the file after
            # the last save, in `run`, which has a newer state.
            await self._in_thread(self._save_to, self._path, snapshot)
        except OSError as error:
            self._report_trouble(f"{self._path}: {error.strerror}")
        except Exception as error:
            # Whatever the error is, serving matters more than keeping a copy on disk.
            log.debug("the state of the cluster cannot be saved", exc_info=True)
            self._report_trouble(f"unexpected {type(error).__name__}: {brief(str(error))}")
        else:
            self._report_trouble("")
        return time.monotonic() - began

    def _report_trouble(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("the state of the cluster cannot be saved: %s", trouble)
        elif self._trouble and not trouble:
            log.info("the state of the cluster is saved again")
        self._trouble = trouble
