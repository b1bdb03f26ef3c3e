"""Counts the system calls of a process with ptrace(2), so that no program must be installed.

Only the main thread is traced. A worker has no other, except those of the kernel.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import struct
from collections import Counter
from pathlib import Path
from typing import Final

_SYSCALL, _DETACH = 24, 17
_SEIZE, _INTERRUPT, _GET_SYSCALL_INFO = 0x4206, 0x4207, 0x420E
_TRACE_SYSGOOD = 1
_SYSCALL_STOP: Final = signal.SIGTRAP | 0x80
_ENTRY: Final = 1
_INFO: Final = struct.Struct("=B3xIQQQ")
"""The beginning of struct ptrace_syscall_info: whether it is the entry, the architecture, two
pointers, and the number of the call."""
END: Final = signal.SIGURG
"""The signal that ends the counting. It is ignored by default, and is never delivered."""
_HEADERS: Final = ("/usr/include/*/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def seize(pid: int) -> None:
    """Begin to trace. `count` must follow in the same thread."""
    _ptrace(_SEIZE, pid, 0, _TRACE_SYSGOOD)
    _ptrace(_INTERRUPT, pid, 0, 0)


def count(pid: int) -> Counter[str]:
    """Count the calls until the process gets the signal `END`."""
    found: Counter[int] = Counter()
    while True:
        stopped = os.waitpid(pid, 0)[1]
        if not os.WIFSTOPPED(stopped):
            raise ChildProcessError(f"the traced process {pid} has ended")
        number, reason = 0, os.WSTOPSIG(stopped)
        if reason == END:
            _ptrace(_DETACH, pid, 0, 0)
            return Counter({_names().get(n, f"number {n}"): times for n, times in found.items()})
        if reason != _SYSCALL_STOP:
            number = reason if stopped >> 16 == 0 else 0
        elif (called := _entered(pid)) is not None:
            found[called] += 1
        _ptrace(_SYSCALL, pid, 0, number)


def _entered(pid: int) -> int | None:
    """The number of the call that begins; None when one ends."""
    info = ctypes.create_string_buffer(88)
    _ptrace(_GET_SYSCALL_INFO, pid, len(info), ctypes.addressof(info))
    operation, _, _, _, number = _INFO.unpack_from(info)
    return int(number) if operation == _ENTRY else None


def _ptrace(request: int, pid: int, address: int, data: int) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _names() -> dict[int, str]:
    """Of system calls; empty where the kernel's headers are not installed."""
    for pattern in _HEADERS:
        for header in Path("/").glob(pattern.lstrip("/")):
            found = re.findall(r"^#define __NR_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
            if found:
                return {int(number): name for name, number in found}
    return {}
