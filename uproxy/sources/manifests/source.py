"""Objects from manifests in files and directories, followed while they change."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from uproxy.core.backoff import Backoff
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.errors import SourceError
from uproxy.core.report.findings import Finding, Place, Severity, finding, new_lines
from uproxy.core.report.status import ObjectStatus
from uproxy.sources.manifests.catalog import Catalog, Change, difference
from uproxy.sources.manifests.changes import FileMonitor, PossibleChanges
from uproxy.sources.manifests.file import (
    MAX_FILE,
    FileContent,
    file_error,
    read_manifest,
    unreadable,
)
from uproxy.sources.manifests.listing import (
    MAX_FILES,
    SUFFIXES,
    Listing,
    Stamp,
    is_manifest,
    without_manifests,
)
from uproxy.sources.sink import Sink
from uproxy.text.advice import one_of
from uproxy.text.files import error_reason, printable_name

_log = logging.getLogger(__name__)

NO_FILE: Final = "neither a file nor a directory"
"""Said of pipes and devices."""
_BACKOFF: Final = Backoff(initial=1.0, maximum=60.0)
"""Before all files are read again after an unexpected error."""
_LASTED: Final = 60.0
"""Seconds after which a further unexpected error starts with the shortest pause again."""
_LONG: Final = 0.2
"""Seconds of reading after which the source rests. A manifest of a hundred Services takes 0.02
s."""


class ManifestSource:
    """Reads files that are named, and all *.yaml, *.yml and *.json files below directories.

    Raises SourceError where a path cannot be read now. What goes wrong later becomes an error,
    and a path that goes away may come back.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        name: str = "manifests",
        read: Callable[[str], FileContent | None] | None = None,
        use_inotify: bool = True,
        backoff: Backoff = _BACKOFF,
        catalog: Callable[[], Catalog] = Catalog,
    ) -> None:
        """All but the paths and the name are for tests."""
        for path in paths:
            check_readable(path)
        self.name = name
        self._roots = [str(path) for path in paths]
        self._read = read or read_file
        self._use_inotify = use_inotify
        self._backoff = backoff
        self._new_catalog = catalog
        self._catalog = catalog()
        """What was read; a new one after an unexpected error."""

    def locate(self, kind: type[Object], name: ObjectName, field: str) -> Place:
        """See uproxy.core.report.findings.Locate."""
        return self._catalog.locate(kind, name, field)

    async def run(self, sink: Sink) -> None:
        """Deliver everything, then every change, until cancelled."""
        stopping = threading.Event()
        with FileMonitor(self._roots, use_inotify=self._use_inotify) as monitor:
            failures = 0
            try:
                while True:
                    began = time.monotonic()
                    self._catalog = self._new_catalog()
                    store = _Store(monitor, self._read, stopping, self._catalog)
                    try:
                        await self._follow(monitor, store, sink)
                    except Exception as error:
                        failures = 1 if time.monotonic() - began > _LASTED else failures + 1
                        self._fail(error, sink, first=failures == 1)
                        await asyncio.sleep(self._backoff.delay(failures))
            finally:
                stopping.set()

    def _fail(self, error: Exception, sink: Sink, *, first: bool) -> None:
        """Whatever the error is, what was delivered stays, and all files are read again."""
        level = logging.ERROR if first else logging.DEBUG
        _log.log(level, "%s: unexpected error", self.name, exc_info=error)
        reason = f"cannot be read: unexpected {type(error).__name__}"
        sink.report_errors(self.name, [file_error(self.name, 0, "", reason)])

    async def _follow(self, monitor: FileMonitor, store: _Store, sink: Sink) -> None:
        hints, delivered = PossibleChanges(everywhere=True), None
        warnings: Sequence[Finding] = ()
        while True:
            began = time.monotonic()
            refreshed = await asyncio.to_thread(store.refresh, hints)
            took = time.monotonic() - began
            if delivered is None:
                sink.replace(self.name, await asyncio.to_thread(store.catalog.objects))
            else:
                self._deliver(refreshed.changes, sink)
            if refreshed.errors != delivered:
                sink.report_errors(self.name, refreshed.errors)
            delivered = refreshed.errors
            for line in new_lines(warnings, refreshed.warnings):
                _log.warning("%s", line)
            warnings = refreshed.warnings
            await asyncio.sleep(rest_after(took))
            hints = await monitor.changes()

    def _deliver(self, changes: Iterable[Change], sink: Sink) -> None:
        for (kind, name), obj in changes:
            if obj is None:
                sink.remove(self.name, kind, name)
            else:
                sink.apply(self.name, obj)


def rest_after(seconds: float) -> float:
    """How long to rest after `seconds` of reading. A large file that is written all the time,
    and may not even be a manifest, then takes half a processor at most."""
    return seconds if seconds > _LONG else 0.0


class _Refreshed(NamedTuple):
    changes: list[Change]
    errors: list[ObjectStatus]
    """All errors, whether they are new or not."""
    warnings: list[Finding]
    """The same for what is odd, but can be used."""


class _ListingNeeded(Exception):
    """A path has turned out to be a directory or a link, so all files have to be listed."""


class _Store:
    """The files that were read. Its methods block, and run in threads, one at a time."""

    def __init__(
        self,
        monitor: FileMonitor,
        read: Callable[[str], FileContent | None],
        stopping: threading.Event,
        catalog: Catalog,
    ) -> None:
        self._monitor = monitor
        self._read_file = read
        self._stopping = stopping
        self._files: dict[str, Stamp] = {}
        self._troubles: Mapping[str, str] = {}
        self._empty_directories: Sequence[Finding] = ()
        self.catalog = catalog

    def refresh(self, hints: PossibleChanges) -> _Refreshed:
        """Read the files that may have changed, and no others."""
        try:
            stale = self._list(hints.paths) if hints.everywhere else self._examine(hints.paths)
        except _ListingNeeded:
            stale = self._list(hints.paths)
        changes = self.catalog.update(self._read(stale))
        troubles = [file_error(path, 0, "", text) for path, text in self._troubles.items()]
        warnings = [*self._empty_directories, *self.catalog.warnings()]
        return _Refreshed(changes, troubles + self.catalog.errors(), warnings)

    def _examine(self, paths: Iterable[str]) -> dict[str, Stamp | None]:
        """The stamps of single files; None: the file is gone, or is not a manifest any longer."""
        stamps: dict[str, Stamp | None] = {}
        for path in paths:
            try:
                status = os.lstat(path)
            except OSError:
                stamps[path] = None
                continue
            if stat.S_ISLNK(status.st_mode) or stat.S_ISDIR(status.st_mode):
                raise _ListingNeeded
            if path not in self._files and len(self._files) >= MAX_FILES:
                raise _ListingNeeded
            wanted = stat.S_ISREG(status.st_mode) and is_manifest(os.path.basename(path))
            stamps[path] = Stamp.of(status) if wanted else None
        return stamps

    def _list(self, touched: Iterable[str]) -> dict[str, Stamp | None]:
        """The stamps of all files that were touched, or whose stamp differs; None: the file is
        gone."""
        listing = self._monitor.scan()
        self._troubles = listing.troubles
        empty = without_manifests(self._monitor.roots, listing)
        self._empty_directories = [empty_directory(each) for each in empty]
        to_read, gone = difference(self._files, listing.files)
        to_read += [path for path in touched if path in listing.files]
        stale: dict[str, Stamp | None] = {path: listing.files[path] for path in to_read}
        return stale | dict.fromkeys(path for path in gone if not _below(path, listing))

    def _read(self, stale: Mapping[str, Stamp | None]) -> dict[str, FileContent | None]:
        readings: dict[str, FileContent | None] = {}
        for path, stamp in stale.items():
            if self._stopping.is_set():
                break
            reading = self._reading(path) if stamp is not None else None
            if stamp is not None and reading is not None:
                self._files[path] = stamp
                readings[path] = reading
            elif self._files.pop(path, None) is not None:
                readings[path] = None
        _log_ignored(readings)
        return readings

    def _reading(self, path: str) -> FileContent | None:
        try:
            return self._read_file(path)
        except Exception as error:
            # Whatever the error is, it concerns one file, and the others are read.
            _log.exception("%s: unexpected error", printable_name(path))
            return unreadable(path, f"cannot be read: unexpected {type(error).__name__}")


def empty_directory(path: str) -> Finding:
    """What to say about a directory without manifests."""
    name, suffixes = printable_name(path), one_of([f"*{each}" for each in SUFFIXES])
    return finding(Severity.WARNING, f"there is no {suffixes} file in it", file=name)


def read_file(path: str) -> FileContent | None:
    """Read and decode one file; None where there is none."""
    # O_NONBLOCK: opening a FIFO would wait for a writer. The type is checked on the descriptor,
    # because the path may lead to something else a moment later.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            raw = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        return unreadable(path, f"cannot be read: {error_reason(error)}")
    return read_manifest(path, raw)


def _below(path: str, listing: Listing) -> bool:
    """Whether a file is missing only because a directory above it could not be listed. Its objects
    stay then: a missing permission is no reason to stop serving."""
    return any(path == each or path.startswith(f"{each}/") for each in listing.unknown)


def check_readable(path: Path) -> None:
    """Raises SourceError where a path cannot be read now."""
    trouble = ""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()
        elif stat.S_ISREG(mode):
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        else:
            trouble = NO_FILE
    except OSError as error:
        trouble = error_reason(error)
    except ValueError:
        trouble = "not a valid file name"
    if trouble:
        raise SourceError(f"{printable_name(str(path))}: {trouble}")


def _log_ignored(readings: Mapping[str, FileContent | None]) -> None:
    counts = [each.ignored for each in readings.values() if each is not None and each.ignored]
    if counts:
        _log.debug(
            "%d objects in %d files are ignored, as a proxy does not need their kinds",
            sum(counts),
            len(counts),
        )
