"""Work in a thread that is not to go on behind the back of whoever asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


async def run_to_completion(act: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Call in a thread. When this is cancelled, once or more often, it waits all the same.

    A thread cannot be stopped. What it makes or writes after its caller is gone would be
    found by nobody: a claim that is made while another thread releases all of them, for example.
    """
    working = asyncio.get_running_loop().run_in_executor(None, act, *arguments)
    cancelled: asyncio.CancelledError | None = None
    while not working.done():
        try:
            await asyncio.wait([working])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        working.exception()  # Nobody else asks for it.
        raise cancelled
    return working.result()
