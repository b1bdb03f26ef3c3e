"""Runs a program for what it prints, within bounds of time and size, and leaves nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Final, NamedTuple

MOST: Final = 1024 * 1024
"""Bytes that a program may print; certificate, key and token together have about 10 KiB."""
_AT_ONCE: Final = 64 * 1024


class ProgramResult(NamedTuple):
    """How a run has ended."""

    status: int
    """Negative: by this signal."""
    output: bytes
    """One byte more than was asked for where it would have printed more."""


async def run_program(
    command: Sequence[str], environ: Mapping[str, str], *, patience: float, most: int = MOST
) -> ProgramResult:
    """Run a program to its end. It reads nothing, and its error output goes nowhere.

    Raises OSError or ValueError where it cannot be started, TimeoutError where it takes longer
    than `patience` seconds. All that it has started is killed when it has ended, since it may have
    left something behind that holds its output, or when this is cancelled.
    """
    if any("\0" in text for text in (*command, *environ, *environ.values())):
        raise ValueError("a NUL character")  # uvloop would cut the text there.
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", 0) as pipe:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=dict(environ),
                stdin=DEVNULL,
                stdout=write_end,
                stderr=DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        try:
            async with asyncio.timeout(patience), asyncio.TaskGroup() as tasks:
                output = tasks.create_task(_read(pipe, process, most))
                status = await process.wait()
                _kill(process)
        finally:
            _kill(process)
            await process.wait()
    return ProgramResult(status, output.result())


async def _read(pipe: BinaryIO, process: Process, most: int) -> bytes:
    """What is printed, until the end, or too much."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    output = bytearray()
    try:
        while len(output) <= most and (some := await reader.read(_AT_ONCE)):
            output += some
    finally:
        transport.close()
    if len(output) > most:
        _kill(process)
    return bytes(output[: most + 1])


def _kill(process: Process) -> None:
    """The program and its children: their group is named after it, and exists as long as one
    of them does."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
