"""When manifests may have changed, and which: by inotify where it works, and otherwise by
listing them again."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from uproxy.sources.manifests import inotify
from uproxy.sources.manifests.inotify import Inotify, InotifyEvent
from uproxy.sources.manifests.listing import Listing, is_manifest, list_files

_log = logging.getLogger(__name__)

_QUIET = 0.02
"""Seconds without an event after which a writer is taken to have finished."""
_PATIENCE = 0.1
"""Seconds after which changes are read although more are coming: they are promised to be served
within 200 ms."""
_POLL_WITHOUT_INOTIFY = (0.1, 20.0)
"""Where inotify does not work: the seconds between two listings, and how many times as long as a
listing they are at least, which keeps listing below 5 % of one CPU."""
_POLL_WITH_INOTIFY = (2.0, 100.0)
"""The same where inotify works: on network and FUSE filesystems it reports only the changes that
are made on this node."""


class PossibleChanges(NamedTuple):
    """Where something may have changed."""

    everywhere: bool = False
    """Whether all files have to be listed again."""
    paths: frozenset[str] = frozenset()
    """In the form of `Listing.files`. They need not be manifests."""


class FileMonitor:
    """Monitors paths and everything that they lead to. It is entered on the event loop on which it
    is used."""

    def __init__(
        self,
        roots: Sequence[str],
        *,
        use_inotify: bool = True,
    ) -> None:
        self.roots = roots
        self._inotify = _open_inotify() if use_inotify else None
        self._listing = Listing()
        self._monitored: dict[int, str] = {}
        """Directories by watch descriptor."""
        self._without_inotify = True
        self._scan_seconds = 0.0
        self._everywhere = False
        self._paths: set[str] = set()
        self._woken = asyncio.Event()

    def __enter__(self) -> Self:
        if self._inotify is not None:
            asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._on_events)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()

    def scan(self) -> Listing:
        """List all manifests and monitor their directories. Blocks, so it is called in a thread."""
        begin = time.monotonic()
        added = _Directories(self._inotify)
        listing = list_files(self.roots, added.add)
        for descriptor in self._monitored.keys() - added.monitored.keys():
            added.remove(descriptor)
        self._monitored = added.monitored
        self._listing = listing
        if added.trouble and not self._without_inotify:
            _log.warning("manifests are polled for changes: %s", added.trouble)
        self._without_inotify = bool(added.trouble) or self._inotify is None
        self._scan_seconds = time.monotonic() - begin
        return listing

    async def changes(self) -> PossibleChanges:
        """Wait for something that may be a change, then until its writer seems to have finished."""
        least, factor = _POLL_WITHOUT_INOTIFY if self._without_inotify else _POLL_WITH_INOTIFY
        try:
            async with asyncio.timeout(max(least, factor * self._scan_seconds)):
                await self._woken.wait()
        except TimeoutError:
            return PossibleChanges(everywhere=True)
        await self._settle()
        hints = PossibleChanges(self._everywhere, frozenset(self._paths))
        self._everywhere = False
        self._paths.clear()
        self._woken.clear()
        return hints

    async def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _PATIENCE
        while (left := end - loop.time()) > 0:
            self._woken.clear()
            try:
                async with asyncio.timeout(min(_QUIET, left)):
                    await self._woken.wait()
            except TimeoutError:
                return

    def _on_events(self) -> None:
        assert self._inotify is not None
        for event in self._inotify.read():
            self._note(event)
        if self._everywhere or self._paths:
            self._woken.set()

    def _note(self, event: InotifyEvent) -> None:
        directory = self._monitored.get(event.descriptor)
        if directory is None or not event.name:
            # A directory that `scan` has added but not yet returned, one that was itself moved or
            # deleted, or an overflow, after which anything may have changed.
            self._everywhere |= directory is not None or not event.mask & inotify.IGNORED
        elif os.path.join(directory, event.name) in self._listing.anchors:
            # For example `..data` of a mounted ConfigMap, through which every file leads.
            self._everywhere = True
        elif directory in self._listing.directories and not event.name.startswith("."):
            self._note_entry(event, self._listing.directories[directory])

    def _note_entry(self, event: InotifyEvent, directory: str) -> None:
        if event.mask & inotify.ISDIR:
            self._everywhere = True
        elif is_manifest(event.name) or event.mask & inotify.APPEARED:
            # What appears under another name may be a link to a directory of manifests.
            self._paths.add(os.path.join(directory, event.name))


class _Directories:
    """Adds the directories of one listing to inotify."""

    def __init__(self, notifier: Inotify | None) -> None:
        self._inotify = notifier
        self._seen: set[str] = set()
        self.monitored: dict[int, str] = {}
        self.trouble = ""

    def add(self, directory: str) -> None:
        if self._inotify is None or directory in self._seen:
            return
        self._seen.add(directory)
        try:
            self.monitored[self._inotify.add(directory)] = directory
        except OSError as error:
            self.trouble = f"{directory}: {error.strerror}"

    def remove(self, descriptor: int) -> None:
        if self._inotify is not None:
            self._inotify.remove(descriptor)


def _open_inotify() -> Inotify | None:
    try:
        return Inotify()
    except OSError as error:
        _log.warning("manifests are polled for changes: inotify: %s", error.strerror)
        return None
