"""Descriptors that a worker keeps free for the sockets that the control process passes to it."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from typing import Final

from uproxy.net.channel import MAX_DESCRIPTORS

_SHARE: Final = 8
"""At most this part of the limit of open files is kept: an eighth."""


class SpareDescriptors:
    """Open descriptors of /dev/null, as many as come with one frame of the channel.

    Flows may take every descriptor that is free. A socket that is passed to this process then is
    lost for good (unix(7): MSG_CTRUNC). When that has happened, these are closed just before the
    next frame is received, which leaves their places to what comes with it.
    """

    def __init__(self) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._wanted = min(MAX_DESCRIPTORS, soft // _SHARE)
        self._kept: list[int] = []
        self.refill()

    def release(self) -> None:
        """Close them all. The caller receives at once, before anything else takes the places."""
        while self._kept:
            os.close(self._kept.pop())

    def refill(self) -> None:
        """Open as many again as is possible."""
        with suppress(OSError):
            while len(self._kept) < self._wanted:
                self._kept.append(
                    os.dup(self._kept[0]) if self._kept else os.open(os.devnull, os.O_RDONLY)
                )

    def close(self) -> None:
        self._wanted = 0
        self.release()
