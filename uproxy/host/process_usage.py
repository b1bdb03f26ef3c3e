"""What a process has used of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _RSS = 11, 12, 21
"""Fields of /proc/PID/stat after the name of the program, counted from 0 (proc_pid_stat(5))."""


class Usage(NamedTuple):
    cpu_seconds: float
    resident_bytes: int


def process_usage(pid: int) -> Usage | None:
    """What a process has used so far; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name is in parentheses, and may contain spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return Usage((int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS, int(fields[_RSS]) * _PAGE)
