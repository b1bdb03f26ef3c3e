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
"""Bytes. Kubeconfigs of hundreds of clusters have about 1 MiB."""


def read_small(path: Path, most: int = MOST) -> bytes:
    """What is in a regular file. Raises OSError where it is none, or larger than `most`: a FIFO
    would be waited for, and a device may have no end."""
    descriptor = _opened(path, os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return _content(file, path, most)


def read_any(path: Path, most: int = MOST, *, patience: float = 10.0) -> bytes:
    """The same for a file that a person has named just now: it may be the output of a program,
    which is waited for, though not for ever."""
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
            raise OSError(
                errno.ETIMEDOUT, "No more data came, but no end of the file either", str(path)
            )
        piece = os.read(descriptor, 65536)
        if not piece:
            return bytes(content)
        content += piece
    raise _too_large(path)


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except ValueError:
        raise OSError(errno.EINVAL, "Not a file name", str(path)) from None


def _content(file: BinaryIO, path: Path, most: int) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise _too_large(path)
    return content


def _too_large(path: Path) -> OSError:
    return OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))


def shown(path: str) -> str:
    """A file name that fits in one line of UTF-8, whatever bytes it is made of."""
    return path if path.isprintable() else ascii(path)[1:-1]


def reason_of(error: OSError) -> str:
    """What the operating system says, in one lower-case phrase."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
