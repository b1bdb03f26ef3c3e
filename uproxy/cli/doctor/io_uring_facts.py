"""Whether the kernel makes an io_uring for this process, and what may have refused it."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import struct
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

DISABLED: Final = "kernel.io_uring_disabled"
GROUP: Final = "kernel.io_uring_group"

_FLAGS: Final = 1 << 12 | 1 << 13
"""SINGLE_ISSUER, DEFER_TASKRUN."""
_SETUP: Final = 425
_SYS_ADMIN: Final = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class IoUring:
    """What decides whether workers can use io_uring."""

    error: int = 0
    """The errno of io_uring_setup(2); 0 if it works."""
    release: tuple[int, ...] = (6, 8)
    """Version of the kernel."""
    disabled: int = 0
    """The sysctl kernel.io_uring_disabled: 1 allows io_uring to a group and to CAP_SYS_ADMIN, and 2
    to no process."""
    exempt: bool = False
    """Whether 1 does not concern this process."""
    filtered: bool = False
    """Whether a seccomp filter looks at the system calls of this process."""
    memlock: int = sys.maxsize
    """Bytes that this process may lock into memory."""


def examine_io_uring(sysctls: Mapping[str, str], status: str) -> IoUring:
    """`status` is the text of /proc/self/status."""
    return IoUring(
        error=_try_io_uring(),
        release=release(os.uname().release),
        disabled=int(sysctls.get(DISABLED, "0")),
        exempt=is_exempt(sysctls.get(GROUP, "-1"), {os.getegid(), *os.getgroups()}, status),
        filtered=is_filtered(status),
        memlock=_memlock(),
    )


def release(text: str) -> tuple[int, ...]:
    """The leading numbers: "6.8.0-31-generic" is (6, 8, 0)."""
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", text, re.ASCII)
    return tuple(map(int, found[0].split("."))) if found else ()


def is_exempt(group: str, groups: Collection[int], status: str) -> bool:
    """Whether a process may use io_uring although kernel.io_uring_disabled is 1. `status` is the
    text of its /proc/PID/status."""
    capable = int(_field(status, "CapEff") or "0", 16) >> _SYS_ADMIN & 1
    return bool(capable) or (group.isdecimal() and int(group) in groups)


def is_filtered(status: str) -> bool:
    """Whether there is a seccomp filter (SECCOMP_MODE_FILTER), from /proc/PID/status."""
    return _field(status, "Seccomp") == "2"


def _field(status: str, name: str) -> str:
    found = re.search(rf"^{name}:\s*(\w+)", status, re.MULTILINE)
    return found[1] if found else ""


def _memlock() -> int:
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _try_io_uring() -> int:
    """Call io_uring_setup(2) with the newest flags that workers need (Linux 6.1); its errno."""
    parameters = ctypes.create_string_buffer(struct.pack("=III", 0, 0, _FLAGS).ljust(120, b"\0"))
    made = ctypes.CDLL(None, use_errno=True).syscall(_SETUP, 1, parameters)
    if made < 0:
        return ctypes.get_errno()
    os.close(made)
    return 0
