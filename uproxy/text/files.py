"""Small files that other programs write, such as credentials."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from pathlib import Path
from typing import BinaryIO, Final

MOST: Final = 4 * 1024 * 1024
"""Bytes. A kubeconfig of hundreds of clusters has about 1 MiB."""


def read_small(path: Path, most: int = MOST) -> bytes:
    """The content of a regular file. Raises OSError where it is not a regular file, since reading a
    FIFO could take for ever and a device may have no end, or where it is larger than `most`."""
    descriptor = _opened(path, os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return _content(file, path, most)


def read_any(path: Path, most: int = MOST, *, patience: float = 10.0) -> bytes:
    """The same for a file that a person has named on the command line. It may be a pipe with the
    output of a program (`<(command)` in a shell), which is waited for, though not for ever."""
    descriptor = _opened(path, os.O_NONBLOCK)
    with open(descriptor, "rb", 0) as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _content(file, path, most)
        return _printed(descriptor, path, most, time.monotonic() + patience)


def _printed(descriptor: int, path: Path, most: int, until: float) -> bytes:
    content, poll = bytearray(), select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(content) <= most:
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise OSError(errno.ETIMEDOUT, "Timed out before the end of the file", str(path))
        piece = os.read(descriptor, 65536)
        if not piece:
            return bytes(content)
        content += piece
    raise _too_large(path)


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except ValueError:
        raise OSError(errno.EINVAL, "Not a valid file name", str(path)) from None


def _content(file: BinaryIO, path: Path, most: int) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise _too_large(path)
    return content


def _too_large(path: Path) -> OSError:
    return OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))


def printable_name(path: str) -> str:
    """A file name as one line of printable text, whatever bytes it is made of."""
    return path if path.isprintable() else ascii(path)[1:-1]


def error_reason(error: OSError) -> str:
    """The reason that the operating system gives, in lower case, for the end of a sentence."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
