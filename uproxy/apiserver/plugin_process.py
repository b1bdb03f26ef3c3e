"""Runs a program for its output, within limits of time and size, and leaves no process behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Final, NamedTuple

MOST: Final = 1024 * 1024
"""Bytes that a program may print. A certificate, a key and a token together have about 10 KiB."""
_AT_ONCE: Final = 64 * 1024


class ProgramResult(NamedTuple):
    """How a program has ended."""

    status: int
    """Exit status; if negative, the signal that has ended it."""
    output: bytes
    """One byte more than was allowed if it printed more."""


async def run_program(
    command: Sequence[str], environ: Mapping[str, str], *, patience: float, most: int = MOST
) -> ProgramResult:
    """Run a program to its end. Its standard input is empty, and its error output is discarded,
    since that may contain secrets.

    Raises OSError or ValueError where it cannot be started, TimeoutError where it takes longer than
    `patience` seconds. When it has ended, or this is cancelled, all processes that it has started
    are killed: one that is left could hold the pipe open, and reading it would never end.
    """
    if any("\0" in text for text in (*command, *environ, *environ.values())):
        raise ValueError("a NUL character")  # uvloop would silently cut the text there.
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
    """The output, until its end or one byte more than `most`."""
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
    """Kill the program and its children. `start_new_session` has made them a process group with the
    number of the program, which is not given to another process while the group exists."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
