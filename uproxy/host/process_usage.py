"""What a process has used of this machine."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _RSS = 11, 12, 21
"""Fields of /proc/PID/stat after the name of the program, counted from 0 (proc_pid_stat(5))."""


class Usage(NamedTuple):
    cpu_seconds: float
    resident_bytes: int
    open_files: int | None
    """Its file descriptors; None: the kernel does not say how many they are."""
    most_open_files: int | None
    """Its soft RLIMIT_NOFILE; None: it is unlimited, or may not be asked."""


def process_usage(pid: int) -> Usage | None:
    """What a process has used so far; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name is in parentheses, and may contain spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return Usage(
        (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS,
        int(fields[_RSS]) * _PAGE,
        _open_files(pid),
        _most_open_files(pid),
    )


def _open_files(pid: int) -> int | None:
    """Since Linux 6.2, the size of the directory is their number; before, it is 0. Listing 20,000
    takes 70 ms, during which the event loop does nothing else."""
    try:
        return os.stat(f"/proc/{pid}/fd").st_size or None
    except OSError:
        return None


def _most_open_files(pid: int) -> int | None:
    try:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except OSError:
        return None
    return soft if soft != resource.RLIM_INFINITY else None
