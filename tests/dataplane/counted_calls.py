"""Counts what uproxy calls, and how often it calls methods of sockets and of epoll.

What a worker does once for a batch of events is left out, as many flows share it.
"""

from __future__ import annotations

import select
import sys
from _socket import socket as Socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uproxy

_SOURCES: Final = str(Path(uproxy.__file__).parent)
_PER_BATCH: Final = frozenset(
    {
        "_dispatch", "_ready", "active", "submit_and_wait", "_reap", "enter", "enter_and_wait",
        "mark_submitted", "give_back_sent", "give_back", "_offer", "_epoll_ready", "_poll_epoll",
        "select", "call_soon", "call_at", "_set_alarm", "timeout_at", "due", "_wake", "_expire",
        "_timed", "guard", "call_later", "submit", "_enter", "_took", "address_of", "_run_deferred",
    }
)  # fmt: skip


class Counted:
    """What uproxy has called since it was installed."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.system_calls: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(_SOURCES):
            return
        if event == "call" and code.co_name not in _PER_BATCH:
            self.calls[code.co_qualname] += 1
        elif event == "c_call" and isinstance(
            getattr(argument, "__self__", None), Socket | select.epoll
        ):
            name = argument.__name__
            if name not in ("fileno", "poll"):
                self.system_calls[name] += 1


@contextmanager
def counted() -> Iterator[Counted]:
    counts = Counted()
    sys.setprofile(counts)
    try:
        yield counts
    finally:
        sys.setprofile(None)
