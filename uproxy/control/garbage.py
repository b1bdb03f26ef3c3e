"""Keeps the garbage collector away from what will stay."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Protocol

_FIRST_SYNC: Final = 60.0
"""Seconds that the first sync may take before garbage is collected all the same."""


class Garbage(Protocol):
    """The garbage collector; the module gc is one."""

    def disable(self) -> None: ...
    def enable(self) -> None: ...
    def freeze(self) -> None: ...


async def freeze_after(served_once: asyncio.Event, garbage: Garbage) -> None:
    """Spare the garbage collector what there is once everything is served: a full collection over
    the objects of a large cluster stops the loop for 0.1 s, even one that is requested just
    once."""
    garbage.disable()
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_SYNC):
                await served_once.wait()
        garbage.freeze()
    finally:
        garbage.enable()
