"""Which manifests there are below a path, and which paths decide about that.

A mounted ConfigMap is the case that shapes this: `a.yaml -> ..data/a.yaml`, where `..data` is a
link to a hidden directory and is replaced on every update. Links are followed, hidden names are
not listed, and a file that several names lead to is listed once.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from uproxy.text.files import reason_of

SUFFIXES: Final = (".yaml", ".yml", ".json")
MAX_FILES = 200_000
"""More are an accident such as `--manifests /`; each costs memory for as long as it is there."""
_MAX_DIRECTORIES = 100_000
_MAX_DEPTH = 100
"""Directories within each other; what is deeper was not made by hand."""
_MAX_LINKS = 40
"""On one way, as in the kernel (MAXSYMLINKS)."""


class Stamp(NamedTuple):
    """Differs when a file has been written or replaced."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int
    """Nanoseconds, both."""

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


@dataclass(slots=True)
class Listing:
    """What was found."""

    files: dict[str, Stamp] = field(default_factory=dict)
    """Regular files with one of the suffixes, and those that were named by themselves."""
    directories: dict[str, str] = field(default_factory=dict)
    """Those that were listed: path with all links resolved -> path as in `files`."""
    anchors: set[str] = field(default_factory=set)
    """Paths (resolved but for the last component) that are no listed file of a listed directory,
    yet decide about the result: roots, links, and what links to files lead to."""
    troubles: dict[str, str] = field(default_factory=dict)
    """Paths that are of no use, and why."""
    unknown: set[str] = field(default_factory=set)
    """Those of them that do exist: what was below them earlier may well be there still."""

    def trouble(self, path: str, error: OSError) -> None:
        self.troubles[path] = reason_of(error)
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            self.unknown.add(path)


def is_manifest(name: str) -> bool:
    """Whether a name in a directory is one to read."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def list_files(
    roots: Iterable[str], watch: Callable[[str], None], limit: int = MAX_FILES
) -> Listing:
    """Find all manifests below `roots`, in sorted order; never raises OSError.

    `watch` is called with every directory whose changes matter, before it is read, so that a
    watch that it sets misses nothing. More than `limit` files are a trouble, and left out.
    """
    return _Walk(watch, limit).run(roots)


def trail(path: str) -> Iterator[str]:
    """Every path whose replacement changes where `path` leads: the links on the way, the end."""
    pending = deque(part for part in os.path.abspath(path).split("/") if part)
    at, links = "/", 0
    while pending:
        part = pending.popleft()
        if part == "..":
            at = os.path.dirname(at)
            continue
        step = os.path.join(at, part)
        try:
            target = os.readlink(step)
        except OSError:
            at = step
            continue
        yield step
        links += 1
        if links > _MAX_LINKS:
            return
        if target.startswith("/"):
            at = "/"
        pending.extendleft(reversed([each for each in target.split("/") if each not in ("", ".")]))
    yield at


class _Full(Exception):
    """The limit has been reached."""


class _Walk:
    def __init__(self, watch: Callable[[str], None], limit: int) -> None:
        self._watch = watch
        self._limit = limit
        self._found = Listing()
        self._real: set[str] = set()
        """Files by the path that all links lead to."""

    def run(self, roots: Iterable[str]) -> Listing:
        for root in sorted(set(roots)):
            try:
                self._root(root)
            except _Full as error:
                self._found.troubles[root] = str(error)
                break
            except OSError as error:
                self._found.trouble(root, error)
        return self._found

    def _root(self, root: str) -> None:
        real = self._follow(root)
        status = os.stat(root)
        if stat.S_ISDIR(status.st_mode):
            self._directory(root, real, 0)
        elif stat.S_ISREG(status.st_mode):
            self._file(root, real, status)
        else:
            self._found.troubles[root] = "neither a file nor a directory"

    def _directory(self, path: str, real: str, depth: int) -> None:
        if real in self._found.directories:
            return
        if depth > _MAX_DEPTH:
            self._found.troubles[path] = f"more than {_MAX_DEPTH} directories deep; it is not read"
            return
        if len(self._found.directories) == _MAX_DIRECTORIES:
            raise _Full(f"more than {_MAX_DIRECTORIES} directories; the rest is not read")
        self._found.directories[real] = path
        self._watch(real)
        with os.scandir(path) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            if not entry.name.startswith("."):
                self._entry(entry, os.path.join(real, entry.name), depth + 1)

    def _entry(self, entry: os.DirEntry[str], real: str, depth: int) -> None:
        try:
            if entry.is_dir():
                end = self._follow(real) if entry.is_symlink() else real
                self._directory(entry.path, end, depth)
            elif is_manifest(entry.name):
                self._named_file(entry, self._follow(real) if entry.is_symlink() else real)
        except OSError as error:
            self._found.trouble(entry.path, error)

    def _named_file(self, entry: os.DirEntry[str], real: str) -> None:
        try:
            status = entry.stat()
        except FileNotFoundError:
            if entry.is_symlink():
                self._found.troubles[entry.path] = "a link to a file that does not exist"
            return
        if stat.S_ISREG(status.st_mode):
            self._file(entry.path, real, status)

    def _file(self, path: str, real: str, status: os.stat_result) -> None:
        if real in self._real:
            return
        if len(self._found.files) == self._limit:
            raise _Full(f"more than {self._limit} files; the rest is not read")
        self._real.add(real)
        self._found.files[path] = Stamp.of(status)

    def _follow(self, path: str) -> str:
        """Watch everything on the way to where a path leads, and return where that is."""
        end = path
        for end in trail(path):
            if end not in self._found.anchors:
                self._found.anchors.add(end)
                self._watch(os.path.dirname(end))
        return end
