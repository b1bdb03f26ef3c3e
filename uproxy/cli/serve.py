"""What `run` and `demo` have in common: logs, signals, and the way to a clean end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import click
import uvloop

from uproxy.cli.startup_progress import tell_while_waiting
from uproxy.config.settings import Config
from uproxy.control.daemon import Daemon
from uproxy.control.startup import Start, StartError, running
from uproxy.core.errors import SourceError

log = logging.getLogger(__name__)


class CannotStart(click.ClickException):
    """One line on stderr, exit code 2."""

    exit_code = 2


def run_to_the_end(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop. Raises CannotStart in place of errors that the user can put right."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except (StartError, SourceError) as error:
        raise CannotStart(str(error)) from None
    except ExceptionGroup as group:  # Task groups wrap what happens inside of them.
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
    with _signals() as (stopping, hurrying):
        async with tell_while_waiting(start), running(config, start) as daemon:
            if when_served is not None and await _first(daemon.served(), stopping.wait()) == 0:
                await when_served(daemon)
            await stopping.wait()
            start.waiting_for = tuple
            log.info("draining for up to %g s", config.drain_timeout)
            await _first(daemon.drain(), hurrying.wait())
            left = daemon.workers.active_flows
            log.info("stopped; flows that were cut: %d", left)


@contextmanager
def _signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Set by the first signal to end, and by the second.

    A second SIGHUP is no second wish: when a terminal is closed, its shell sends one, and the
    kernel another. What is ignored stays so: SIGHUP by nohup(1), and SIGINT in the background of
    a script, where a Ctrl-C is meant for others.
    """
    stopping, hurrying = asyncio.Event(), asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if not stopping.is_set():
            stopping.set()
        elif number is not signal.SIGHUP:
            hurrying.set()

    loop = asyncio.get_running_loop()
    others = (signal.SIGINT, signal.SIGHUP)
    heeded = [each for each in others if signal.getsignal(each) is not signal.SIG_IGN]
    numbers = [signal.SIGTERM, *heeded]
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield stopping, hurrying
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _first(*waits: Coroutine[Any, Any, object]) -> int:
    """Run until one has finished, cancel the others; returns its index."""
    done: list[int] = []

    async def watch(index: int, wait: Coroutine[Any, Any, object]) -> None:
        await wait
        done.append(index)
        for task in tasks:
            task.cancel()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watch(*each)) for each in enumerate(waits)]
    return done[0]
