"""A file that only this program writes, in a directory where others may be able to write too.

Whoever can put something in its place could have us serve what they like, write over what they may
not, or wait for ever. So nothing there is followed, waited for or written over, and only what is
ours alone is read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

_STALE: Final = 600.0
"""Seconds after which a temporary file is taken for what a process left behind that was killed."""


@contextmanager
def replace_private(
    path: Path,
    *,
    unique: Callable[[], str] = secrets.token_hex,
    wall: Callable[[], float] = time.time,
) -> Iterator[BinaryIO]:
    """Write a file anew: it is there, and for good, when the context ends, unless by an error.

    Only its owner may read it. Raises OSError. `unique` gives a part of the temporary name that
    nobody can guess, `wall` Unix time.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_stale(directory, path.name, wall() - _STALE)
        temporary = f".{path.name}.{unique()}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
        try:
            with open(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            os.rename(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)  # So that the name survives a power failure.
    finally:
        os.close(directory)


def open_private(path: Path, *, most: int) -> BinaryIO:
    """Open a file to read it. Raises OSError where it is not a regular file, belongs to another
    user, may be changed by others, has another name as well, or has more than `most` bytes."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        reason = _suspicion(os.fstat(descriptor), most)
        if reason:
            raise OSError(errno.EPERM, reason, str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def _suspicion(status: os.stat_result, most: int) -> str:
    """Why a file is not to be trusted; "": it is."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_uid != os.geteuid():
        return f"it belongs to another user ({status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "other users may write to it"
    if status.st_nlink > 1:
        return "it has another name as well (a hard link)"
    return f"it is larger than {most >> 20} MiB" if status.st_size > most else ""


def _remove_stale(directory: int, name: str, before: float) -> None:
    """Remove what earlier processes left behind; it was written before this Unix time."""
    for each in os.listdir(directory):
        if each.startswith(f".{name}.") and each.endswith("new"):
            with contextlib.suppress(OSError):
                if os.stat(each, dir_fd=directory, follow_symlinks=False).st_mtime < before:
                    os.unlink(each, dir_fd=directory)
