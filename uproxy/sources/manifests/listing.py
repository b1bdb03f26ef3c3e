"""Which manifests there are below a path, and which paths have to be monitored to know that.

The case that shapes this is a mounted ConfigMap. Its `a.yaml` is a link to `..data/a.yaml`, and
`..data` is a link to a hidden directory with a time stamp as its name. The kubelet updates all
files at once: it writes a new directory and renames a new link over `..data`, so that neither
`a.yaml` nor its directory changes. Hence links are followed and every step on the way is monitored,
hidden names are not listed, and a file to which several names lead is listed once.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from uproxy.text.files import error_reason

SUFFIXES: Final = (".yaml", ".yml", ".json")
MAX_FILES = 200_000
"""More files are an accident such as `--manifests /`. Each takes memory for as long as it
exists."""
_MAX_DIRECTORIES = 100_000
_MAX_DEPTH = 100
"""Directories within each other. People do not make deeper ones."""
_MAX_LINKS = 40
"""Links on the way to one file, as in the kernel (MAXSYMLINKS)."""


class Stamp(NamedTuple):
    """Changes when a file is written or replaced."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int
    """Both times are in nanoseconds."""

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


@dataclass(slots=True)
class Listing:
    """The result of listing."""

    files: dict[str, Stamp] = field(default_factory=dict)
    """Regular files with one of the suffixes, and files that were named as roots."""
    directories: dict[str, str] = field(default_factory=dict)
    """Directories that were listed: the path with all links resolved -> the path as in `files`."""
    anchors: set[str] = field(default_factory=set)
    """Other paths that decide about the result: roots, links, and the files that links lead to. All
    components but the last are resolved."""
    troubles: dict[str, str] = field(default_factory=dict)
    """Paths that cannot be used, and why."""
    unknown: set[str] = field(default_factory=set)
    """Those of them that exist: the files that were below them may well be there still."""

    def trouble(self, path: str, error: OSError) -> None:
        self.troubles[path] = error_reason(error)
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            self.unknown.add(path)


def is_manifest(name: str) -> bool:
    """Whether the name of a file in a directory is that of a manifest."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def list_files(
    roots: Iterable[str], monitor: Callable[[str], None], limit: int = MAX_FILES
) -> Listing:
    """Find all manifests below `roots`, in sorted order. Never raises OSError.

    `monitor` is called with every directory whose changes matter. It is called before the directory
    is read: a change between the two is then seen twice, while the other order could miss it. Files
    beyond `limit` are left out, which is reported as a trouble.
    """
    return _Walk(monitor, limit).run(roots)


def without_manifests(roots: Iterable[str], listing: Listing) -> list[str]:
    """The directories among `roots` that have no manifest, nor have those below them."""
    # One of them may be below another, and is listed under the name that it has there.
    listed = {root: listing.directories.get(os.path.realpath(root)) for root in roots}
    return [
        root
        for root, path in listed.items()
        if path is not None
        and not any(file.startswith(os.path.join(path, "")) for file in listing.files)
    ]


def path_steps(path: str) -> Iterator[str]:
    """Every path whose replacement changes where `path` leads: the links on the way, and the
    end."""
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
    """One walk through all roots."""

    def __init__(self, monitor: Callable[[str], None], limit: int) -> None:
        self._monitor = monitor
        self._limit = limit
        self._found = Listing()
        self._real: set[str] = set()
        """The files that were listed, by their path with all links resolved."""

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
        self._monitor(real)
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
        """Monitor every step on the way to where a path leads, and return where that is."""
        end = path
        for end in path_steps(path):
            if end not in self._found.anchors:
                self._found.anchors.add(end)
                self._monitor(os.path.dirname(end))
        return end
