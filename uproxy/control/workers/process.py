"""The process of a worker: how it is started, and how it ends.

Workers are started by exec, not only forked, so they have none of the memory of this process. Each
has one stream Unix socket to the control process. An end of file on it tells each of the two
processes that the other has ended.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from uproxy.net.sockets import LINUX, SocketCalls

log = logging.getLogger(__name__)

_NO_RING = ("--no-io-uring",)
_JSON = ("--log-json",)
_BOOT = (
    "import sys; path = sys.path; path.insert(0, sys.argv.pop(1)); import uproxy; "
    "path.append(path.pop(0)); from uproxy.dataplane.__main__ import run; run()"
)
_LOOK = 0.01
"""Seconds between two checks of whether a process has ended."""
_DEATH = 5.0
"""Seconds that a killed process gets to end. One that waits for a device may never end."""


class Process(Protocol):
    """What is needed of subprocess.Popen."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def send_signal(self, sig: int) -> None: ...


class Started(NamedTuple):
    """A process, and our end of the socket to it."""

    process: Process
    sock: socket.socket


async def start_worker(
    *,
    ring: bool = True,
    log_format: str = "text",
    calls: SocketCalls = LINUX,
    popen: Callable[..., Process] = subprocess.Popen,
) -> Started:
    """Start a worker. It uses io_uring if `ring` is set and the kernel allows it.

    Raises OSError.
    """
    ours, theirs = calls.socketpair()
    try:
        options = [*_NO_RING[ring:], *_JSON[log_format != "json" :]]
        return Started(_spawn(popen, theirs.fileno(), options), ours)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()


def _spawn(popen: Callable[..., Process], channel: int, options: Sequence[str]) -> Process:
    """Start the process, without the event loop: uvloop leaks what it has opened when it runs out
    of descriptors, and there is no need to wait for the process, as its channel tells of its
    end."""
    return popen(
        [*_command(), str(channel), *options],
        pass_fds=[channel],
        stdin=subprocess.DEVNULL,
        # A terminal's Ctrl-C goes to the whole group, but the control process decides when a
        # worker ends.
        start_new_session=True,
    )


def _command() -> list[str]:
    """A worker imports from where this process does, but never from the current directory (-P).

    It runs the same uproxy, and whatever else lies in that folder comes last, behind the standard
    library and what is installed: the folder may be the current directory itself, or a zip file.
    """
    flags = sys.flags
    inherited = ["-I"] * flags.isolated + ["-s"] * flags.no_user_site
    inherited += ["-E"] * flags.ignore_environment
    return [sys.executable, "-P", *inherited, "-c", _BOOT, str(Path(__file__).parents[3])]


async def reap(process: Process, *, grace: float) -> str:
    """Wait for a process whose channel is closed, and kill it after `grace` seconds; returns how it
    ended.

    A process that ends by itself resets its flows. If it is killed, the kernel closes them, and
    clients may take a stream that was cut short for a complete one. So a process that was stopped
    (SIGSTOP) is continued first.
    """
    _signal(process, signal.SIGCONT)
    code = await _ended(process, grace)
    if code is not None:
        return _ending(code)
    _signal(process, signal.SIGKILL)
    if await _ended(process, _DEATH) is None:
        log.error("process %d was killed, but has not ended", process.pid)
    return "hung and was killed"


def _signal(process: Process, number: int) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)


async def _ended(process: Process, seconds: float) -> int | None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    try:
        while (code := process.poll()) is None and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)
    except asyncio.CancelledError:  # A second signal: end at once, but leave no process behind.
        _signal(process, signal.SIGKILL)
        raise
    return code


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
