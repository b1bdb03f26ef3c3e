"""Runs the control process in the foreground, for `run` and `demo`: signals and a clean end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import click
import uvloop

from uproxy.cli.startup_progress import log_while_waiting
from uproxy.config.settings import Config
from uproxy.control.daemon import Daemon
from uproxy.control.startup import Start, StartError, running
from uproxy.core.errors import SourceError

log = logging.getLogger(__name__)


class CannotStart(click.ClickException):
    """One line on stderr, exit code 2."""

    exit_code = 2


def run_async(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop. Raises CannotStart instead of errors that the user can correct."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except (StartError, SourceError) as error:
        raise CannotStart(str(error)) from None
    except ExceptionGroup as group:  # Task groups wrap what happens inside them.
        expected, other = group.split((StartError, SourceError))
        if expected is None or other is not None:
            raise
        raise CannotStart(str(_first_of(expected))) from None


def _first_of(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, ExceptionGroup) else first


async def serve(
    config: Config, when_served: Callable[[Daemon], Awaitable[None]] | None = None
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then drain; a second signal ends the draining."""
    start = Start()
    with _stop_signals() as (stop, stop_now):
        async with log_while_waiting(lambda: start.waiting_for()), running(config, start) as daemon:
            if (
                when_served is not None
                and await _first_to_finish(daemon.served(), stop.wait()) == 0
            ):
                await when_served(daemon)
            await stop.wait()
            start.waiting_for = tuple
            log.info("draining for up to %g s", config.drain_timeout)
            await _first_to_finish(daemon.drain(), stop_now.wait())
            left = daemon.workers.active_flows
            log.info("stopped; flows that were cut: %d", left)


@contextmanager
def _stop_signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Two events: the first signal that asks uproxy to stop sets one, the second signal the other.

    A second SIGHUP does not count: when a terminal is closed, its shell sends one SIGHUP and the
    kernel another. A signal that was ignored at the start stays ignored: SIGHUP under nohup(1),
    and SIGINT in the background of a script, where Ctrl-C is meant for other processes.
    """
    stop, stop_now = asyncio.Event(), asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if not stop.is_set():
            stop.set()
        elif number is not signal.SIGHUP:
            stop_now.set()

    loop = asyncio.get_running_loop()
    others = (signal.SIGINT, signal.SIGHUP)
    not_ignored = [each for each in others if signal.getsignal(each) is not signal.SIG_IGN]
    numbers = [signal.SIGTERM, *not_ignored]
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop, stop_now
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _first_to_finish(*waits: Coroutine[Any, Any, object]) -> int:
    """Run all until one has finished, then cancel the others; returns the index of that one."""
    done: list[int] = []

    async def run(index: int, wait: Coroutine[Any, Any, object]) -> None:
        await wait
        done.append(index)
        for task in tasks:
            task.cancel()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(*each)) for each in enumerate(waits)]
    return done[0]
