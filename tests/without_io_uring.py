"""Runs a command for which the kernel refuses io_uring, as container runtimes have it refused:

    python -m tests.without_io_uring COMMAND...

A seccomp filter answers io_uring_setup(2) with EPERM. It needs no privilege, and what the command
starts inherits it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Final

_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_RET_ALLOW: Final = 0x7FFF0000
_RET_ERRNO: Final = 0x00050000
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_IO_URING_SETUP: Final = 425
"""The same number on all architectures, as for every system call since Linux 5.1."""

FILTER: Final = b"".join(
    struct.pack("=HBBI", code, if_so, if_not, value)
    for code, if_so, if_not, value in (
        (_LOAD_WORD, 0, 0, 0),  # The number of the system call, first in struct seccomp_data.
        (_JUMP_IF_EQUAL, 0, 1, _IO_URING_SETUP),
        (_RETURN, 0, 0, _RET_ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _RET_ALLOW),
    )
)
"""Classic BPF: an array of struct sock_filter."""


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def refuse_io_uring() -> None:
    """From now on, in this process and its children. Raises OSError where filters are refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(FILTER) // 8, FILTER)
    zero = ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) or libc.prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program), zero, zero
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    refuse_io_uring()
    os.execvp(sys.argv[1], sys.argv[1:])
