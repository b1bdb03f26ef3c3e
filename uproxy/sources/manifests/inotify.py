"""Notice of changes in directories, by inotify(7) through ctypes.

The libraries that wrap inotify (watchfiles, watchdog) are not used. Each adds a thread and delays
of its own, does not follow the links by which ConfigMaps are updated, and loses track of a
directory that is removed and made again.

"Watch descriptor" is inotify's term for the number of a directory that was added.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

_MODIFY = 0x002
_ATTRIB = 0x004
_CLOSE_WRITE = 0x008
_MOVED_FROM = 0x040
_MOVED_TO = 0x080
_CREATE = 0x100
_DELETE = 0x200
_DELETE_SELF = 0x400
_MOVE_SELF = 0x800
_ONLYDIR = 0x01000000
_MASK: Final = (
    _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
    | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
)  # fmt: skip

UNMOUNT = 0x2000
OVERFLOW = 0x4000
"""The kernel has dropped events because more than fs.inotify.max_queued_events were waiting."""
IGNORED = 0x8000
"""The watch descriptor is not valid any longer: its directory is gone, or `remove` was called."""
ISDIR = 0x40000000
APPEARED: Final = _CREATE | _MOVED_TO

_EVENT = struct.Struct("iIII")
_READ = 64 * 1024
_BUFFERS = 8
"""Buffers that one call reads: 16,000 events, which take 20 ms."""


class InotifyEvent(NamedTuple):
    descriptor: int
    """The watch descriptor; -1 for OVERFLOW."""
    mask: int
    name: str
    """Of the entry in the directory; "" when the event is about the directory itself."""


class Inotify:
    """One inotify instance. Raises OSError where the kernel gives none: EMFILE, when the user has
    fs.inotify.max_user_instances already, or ENOSYS."""

    def __init__(self, read: Callable[[int, int], bytes] = os.read) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise _last_error()
        self._read = read
        self._lock = threading.Lock()
        """Keeps a thread that adds directories from using the descriptor after it was closed, when
        its number may belong to another file."""

    def fileno(self) -> int:
        return self._fd

    def add(self, directory: str) -> int:
        """Add a directory; returns its watch descriptor, which its events carry. The kernel goes by
        the inode, so the same directory has one descriptor, whatever path leads to it. May be
        called from any thread.

        Raises OSError; ENOSPC where the user has fs.inotify.max_user_watches already.
        """
        with self._lock:
            if self._fd < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            descriptor: int = self._libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK)
            if descriptor < 0:
                raise _last_error()
            return descriptor

    def remove(self, descriptor: int) -> None:
        """Remove a directory, which may be gone already. May be called from any thread."""
        with self._lock:
            if self._fd >= 0:
                self._libc.inotify_rm_watch(self._fd, descriptor)

    def read(self) -> Iterator[InotifyEvent]:
        """The events that are waiting, but only some of them in one call: they may come as fast as
        they are read, and would hold up the event loop."""
        for _ in range(_BUFFERS):
            try:
                buffer = self._read(self._fd, _READ)
            except BlockingIOError:
                return
            yield from _events(buffer)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _events(buffer: bytes) -> Iterator[InotifyEvent]:
    offset = 0
    while offset < len(buffer):
        descriptor, mask, _, length = _EVENT.unpack_from(buffer, offset)
        offset += _EVENT.size
        name = buffer[offset : offset + length].rstrip(b"\0")
        offset += length
        yield InotifyEvent(descriptor, mask, os.fsdecode(name))
