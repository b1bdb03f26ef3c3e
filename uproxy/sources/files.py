"""Small files that somebody else writes, such as credentials."""

from __future__ import annotations

import errno
import os
import stat
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


def read_any(path: Path, most: int = MOST) -> bytes:
    """The same for a file that a person has named just now, and that may be the output of a
    program; it is waited for."""
    with open(_opened(path, 0), "rb") as file:
        return _content(file, path, most)


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except ValueError:
        raise OSError(errno.EINVAL, "Not a file name", str(path)) from None


def _content(file: BinaryIO, path: Path, most: int) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content
