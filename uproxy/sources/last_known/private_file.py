"""A file that this program alone may write, in a directory that other users may write to.

Whoever could put something else in the file's place could have this program serve what they like,
overwrite files that they may not write, or wait for ever. So no symbolic link is followed, no FIFO
is waited for, nothing that exists is written to, and only a file that belongs to this user alone is
read.
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
"""Seconds after which a temporary file is taken to be left over from a process that was killed."""


@contextmanager
def replace_private(
    path: Path,
    *,
    unique: Callable[[], str] = secrets.token_hex,
    wall: Callable[[], float] = time.time,
) -> Iterator[BinaryIO]:
    """Write a new file that takes the place of `path` when the context ends without an error. From
    then on it survives a power failure; until then the old file is there, whole.

    Only its owner may read it, since annotations may hold secrets. Raises OSError. `unique` returns
    a part of the temporary name that cannot be guessed, `wall` Unix time.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # All that follows happens in this directory, even if another one is put in its place meanwhile.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_stale(directory, path.name, wall() - _STALE)
        temporary = f".{path.name}.{unique()}.new"
        # O_EXCL: an existing file or link of that name is an error, whoever has made it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
        try:
            with open(descriptor, "wb") as file:
                yield file
                file.flush()
                # Before the rename: after a power failure the name could otherwise lead to a file
                # whose content was never written.
                os.fsync(descriptor)
            os.rename(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)  # The new name itself is part of the directory.
    finally:
        os.close(directory)


def open_private(path: Path, *, most: int) -> BinaryIO:
    """Open a file to read it. Raises OSError where it is not a regular file, belongs to another
    user, may be changed by others, has another name as well, or has more than `most` bytes."""
    # O_NONBLOCK: opening a FIFO would wait for a writer. The checks are made on the descriptor,
    # because the name may lead to another file by the time it is read.
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
    """Why a file cannot be trusted; "": it can."""
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
    """Remove temporary files that were written before this Unix time."""
    for each in os.listdir(directory):
        if each.startswith(f".{name}.") and each.endswith("new"):
            with contextlib.suppress(OSError):
                if os.stat(each, dir_fd=directory, follow_symlinks=False).st_mtime < before:
                    os.unlink(each, dir_fd=directory)
