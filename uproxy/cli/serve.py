"""Runs the control process in the foreground, for `run` and `demo`, with a clean end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import click
import uvloop

from uproxy.cli.service_notices import ServiceNotices
from uproxy.cli.signals import stop_signals
from uproxy.cli.startup_progress import log_while_waiting
from uproxy.config.settings import Config
from uproxy.control.daemon import Daemon
from uproxy.control.startup import Start, StartError, running
from uproxy.core.errors import SourceError
from uproxy.sources.manifests.source import check_readable

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
    config: Config,
    when_served: Callable[[Daemon], Awaitable[None]] | None = None,
    *,
    when_started: Callable[[Daemon], None] = lambda _: None,
    reload: Callable[[Daemon], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the draining. SIGHUP calls
    `reload`; without it, SIGHUP is a signal to stop, too. `when_started` is called before anything
    is read or served."""
    for path in config.manifests:
        check_readable(path)
    start = Start()
    with stop_signals(reload is not None) as signals:
        async with log_while_waiting(lambda: start.waiting_for()), running(config, start) as daemon:
            when_started(daemon)
            notices = ServiceNotices.of_this_process(daemon)
            async with notices.told():
                if reload is not None:
                    signals.when_hung_up(lambda: notices.reload(lambda: reload(daemon)))
                if when_served is not None and await _served_before(signals.stop, daemon):
                    await when_served(daemon)
                await signals.stop.wait()
                start.waiting_for = tuple
                log.info("draining for up to %g s", daemon.config.drain_timeout)
                notices.stopping()
                await _first_to_finish(daemon.drain(), signals.stop_now.wait())
            left = daemon.workers.active_flows
            log.info("stopped; flows that were cut: %d", left)


async def _served_before(stop: asyncio.Event, daemon: Daemon) -> bool:
    """Wait until everything is served, or until the program is to stop."""
    return await _first_to_finish(daemon.served(), stop.wait()) == 0


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
