"""Notice of changes in directories: inotify(7) through ctypes.

Written by hand because the libraries that wrap it (watchfiles, watchdog) each add a thread and
their own delays, follow no links, which is how ConfigMaps are updated, and lose a directory that
is removed and made again. What is left to do without them is this file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Iterator
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
"""The kernel has dropped events (fs.inotify.max_queued_events)."""
IGNORED = 0x8000
"""The watch is gone, since its directory is or by `remove`."""
ISDIR = 0x40000000
APPEARED: Final = _CREATE | _MOVED_TO

_EVENT = struct.Struct("iIII")
_READ = 64 * 1024
_BUFFERS = 8
"""Read in one call: 16,000 events, and 20 ms."""


class Event(NamedTuple):
    watch: int
    """-1 for OVERFLOW."""
    mask: int
    name: str
    """In the watched directory; "" when the event is about the directory itself."""


class Inotify:
    """One inotify instance. Raises OSError where the kernel has none to give (EMFILE, ENOSYS)."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise _last_error()
        self._lock = threading.Lock()
        """Keeps a thread that adds watches from using the descriptor after it was closed."""

    def fileno(self) -> int:
        return self._fd

    def add(self, directory: str) -> int:
        """Watch a directory; the number that its events carry. The same directory, whatever the
        path to it, has one number. Raises OSError (ENOSPC: fs.inotify.max_user_watches).
        May be called from any thread.
        """
        with self._lock:
            if self._fd < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            watch: int = self._libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK)
            if watch < 0:
                raise _last_error()
            return watch

    def remove(self, watch: int) -> None:
        """Forget a watch; it may be gone already. May be called from any thread."""
        with self._lock:
            if self._fd >= 0:
                self._libc.inotify_rm_watch(self._fd, watch)

    def read(self) -> Iterator[Event]:
        """The events that are waiting; where there are very many, the rest waits for the next
        call, as they may come as fast as they are read."""
        for _ in range(_BUFFERS):
            try:
                buffer = os.read(self._fd, _READ)
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


def _events(buffer: bytes) -> Iterator[Event]:
    offset = 0
    while offset < len(buffer):
        watch, mask, _, length = _EVENT.unpack_from(buffer, offset)
        offset += _EVENT.size
        name = buffer[offset : offset + length].rstrip(b"\0")
        offset += length
        yield Event(watch, mask, os.fsdecode(name))
