"""A file to which whole lines are appended, whatever is done to it meanwhile."""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from typing import Final

STDOUT: Final = "-"
_MODE: Final = 0o640
"""Lines name clients, which is nothing for every user of the machine."""
_WAIT: Final = 1000
"""Milliseconds between two looks at a standard output that takes nothing."""


class LineFile:
    """Standard output, or a file that is opened again when it was moved or removed, as logrotate
    does. Its calls block."""

    def __init__(self, path: str, stdout: int | None = None) -> None:
        """`path`: STDOUT for the descriptor `stdout`; None: that of this process."""
        self._path = path
        self._file = -1
        if path == STDOUT:
            self._file = _standard_output() if stdout is None else stdout
        self._rest = b""
        """Of a line that has begun in this file."""

    def __str__(self) -> str:
        return "standard output" if self._path == STDOUT else self._path

    def open(self) -> None:
        """Open the file, unless it is open. Raises OSError; a pipe needs a reader (ENXIO)."""
        if self._file >= 0:
            return
        if self._path == STDOUT:
            raise OSError(errno.EBADF, "it is closed")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._file = os.open(self._path, flags, _MODE)
        status = os.fstat(self._file)
        if stat.S_ISFIFO(status.st_mode):
            os.set_blocking(self._file, True)
        elif stat.S_ISREG(status.st_mode) and status.st_size and not self._ends_a_line():
            # A process has ended in the middle of it. The next line must not be glued to it.
            self._rest = b"\n"

    def reopen(self) -> None:
        """Open the file anew with the next write. If a line has begun in it, it is completed first,
        unless the name is that of another file by then."""
        if not self._rest:
            self.close()

    def close(self) -> None:
        """What is written next goes to the file that has the name by then."""
        if self._path != STDOUT and self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._rest = b""

    def write(self, lines: bytes) -> tuple[int, OSError | None]:
        """Append lines. If that fails: how many were lost, and why. A line that has begun, as on a
        disk that became full, is completed first by the next call."""
        try:
            if self._was_moved():
                self.close()
            self.open()
        except OSError as error:
            return lines.count(b"\n"), error
        rest = memoryview(self._rest + lines)
        before = len(self._rest)
        done = 0
        try:
            while done < len(rest):
                done += self._write(rest[done:])
        except OSError as error:
            return self._lost(bytes(rest), before, done), error
        self._rest = b""
        return 0, None

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._file, data)
        except BlockingIOError:
            # Whoever made the other end of standard output may have made it so for both.
            poll = select.poll()
            poll.register(self._file, select.POLLOUT)
            poll.poll(_WAIT)
            return 0

    def _lost(self, data: bytes, before: int, done: int) -> int:
        """Keep the rest of a line that has begun, and count the lines behind it."""
        begun = done > 0 and data[done - 1 : done] != b"\n"
        if done < before:
            begun = True
        end = data.index(b"\n", done) + 1 if begun else done
        self._rest = data[done:end]
        return data.count(b"\n", end)

    def _ends_a_line(self) -> bool:
        try:
            # By way of /proc it is the same file, whatever has the name by now.
            with open(f"/proc/self/fd/{self._file}", "rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) == b"\n"
        except OSError:
            # It may be written only, or has just been truncated.
            return True

    def _was_moved(self) -> bool:
        if self._path == STDOUT or self._file < 0:
            return False
        try:
            there = os.stat(self._path)
        except OSError as error:
            return error.errno in (errno.ENOENT, errno.ENOTDIR)
        mine = os.fstat(self._file)
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)


def _standard_output() -> int:
    """Its descriptor; -1 if the program was started without one. The number then belongs to
    whatever was opened first, which may be a socket."""
    return 1 if sys.__stdout__ is not None else -1
