"""Descriptors that are kept for the control process's sockets."""

from __future__ import annotations

import os
import resource
from contextlib import suppress

from uproxy.net.channel import MAX_DESCRIPTORS

_SHARE = 8
"""The reserve is at most this part of the limit."""


class Reserve:
    """Flows may take every descriptor that is free, and what the control process sends then is
    lost. As much as one frame brings is had back from here when that has happened."""

    def __init__(self) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._wanted = min(MAX_DESCRIPTORS, soft // _SHARE)
        self._kept: list[int] = []
        self.fill()

    def give(self) -> None:
        """Free them all, for a caller that uses them at once, before anything else can."""
        while self._kept:
            os.close(self._kept.pop())

    def fill(self) -> None:
        """Take back what is left."""
        with suppress(OSError):
            while len(self._kept) < self._wanted:
                self._kept.append(
                    os.dup(self._kept[0]) if self._kept else os.open(os.devnull, os.O_RDONLY)
                )

    def close(self) -> None:
        self._wanted = 0
        self.give()
