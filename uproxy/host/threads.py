"""Blocking calls in a thread, which must not go on after their caller was cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


async def run_to_completion(act: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Call `act` in a thread. If this is cancelled, it still waits until the call has ended.

    A thread cannot be stopped, and what it does after its caller is gone would be lost to the
    program: a claim, for example, that is made while another thread releases all of them.
    """
    working = asyncio.get_running_loop().run_in_executor(None, act, *arguments)
    cancelled: asyncio.CancelledError | None = None
    while not working.done():
        try:
            await asyncio.wait([working])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        working.exception()  # Retrieved, so that asyncio does not log it as forgotten.
        raise cancelled
    return working.result()
