"""Lets other tasks of the event loop run during a long series of short calls."""

from __future__ import annotations

import asyncio
import time
from typing import Final

_SLICE: Final = 0.005
"""Seconds before other tasks run."""


class TimeSlices:
    """Made at the beginning of the series."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def pause_if_due(self) -> None:
        """Let other tasks run if the series has taken long since they last did."""
        if time.monotonic() - self._began > _SLICE:
            await asyncio.sleep(0)
            self._began = time.monotonic()
