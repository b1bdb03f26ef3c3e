"""All workers: each has a running process, or a reason why it has none."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

from uproxy.control.workers.liveness import Timeouts
from uproxy.control.workers.process import Process, Started, reap, start_worker
from uproxy.control.workers.worker import Worker
from uproxy.core.backoff import Backoff
from uproxy.core.flows.counter_totals import CounterTotals
from uproxy.core.flows.counters import Counters
from uproxy.core.report.status import WorkerStatus
from uproxy.core.route import Frontend, ServicePortName
from uproxy.net.messages import (
    Drain,
    Drained,
    FromWorker,
    LocalClients,
    Open,
    Ready,
    Records,
    Report,
    Settings,
    ToWorker,
    Unserved,
)
from uproxy.net.sockets import LINUX, SocketCalls

log = logging.getLogger(__name__)

_RESTART = Backoff(initial=0.05, maximum=5.0, jitter=0.2)


class Periods(NamedTuple):
    """Seconds."""

    look: float = 1.0
    """Between checks of whether the workers are alive."""
    tidy: float = 30.0
    """Between removals of the counters of Services that no longer exist."""
    end: float = 1.0
    """That a worker gets to end by itself after its channel was closed; then it is killed."""


_TIMEOUTS = Timeouts()
_PERIODS = Periods()


class Workers:
    """An async context manager that keeps `count` worker processes running while it is open.

    `state` yields, for the index of a worker, the messages and sockets that bring a new process up
    to date. Leaving ends the processes, flows and all; drain first.
    """

    def __init__(
        self,
        settings: Callable[[int], Settings],
        count: int,
        state: Callable[[int], Iterable[tuple[Open, socket.socket]]],
        *,
        wanted: Callable[[ServicePortName], bool] = lambda _: True,
        reported: Callable[[int, Report], None] = lambda *_: None,
        ended: Callable[[int], None] = lambda _: None,
        recorded: Callable[[int, Records], None] = lambda *_: None,
        start: Callable[[], Awaitable[Started]] = start_worker,
        timeouts: Timeouts = _TIMEOUTS,
        periods: Periods = _PERIODS,
        restart: Backoff = _RESTART,
        calls: SocketCalls = LINUX,
    ) -> None:
        """`wanted`: whether a Service port still exists; the counters of others are removed.
        `reported` is called with the index of a worker and its report, `recorded` with records of
        its flows, and `ended` when its process has ended. `start` starts a process."""
        self._reported = reported
        self._ended = ended
        self._recorded = recorded
        self._settings = settings
        self._state = state
        self._wanted = wanted
        self._start = start
        self._periods = periods
        self._restart = restart
        self._workers = [Worker(index, timeouts, self._received, calls) for index in range(count)]
        self._clients = LocalClients((), ())
        self._totals = CounterTotals()
        self._draining = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []
        self._warned_of_flow_limit = False

    @property
    def count(self) -> int:
        return len(self._workers)

    @property
    def running(self) -> Mapping[int, int]:
        """The ids of the processes that have started, by the index of the worker."""
        return {each.index: each.pid for each in self._workers if each.ready.is_set()}

    @property
    def active_flows(self) -> int:
        return sum(worker.active_flows for worker in self._workers)

    @property
    def started(self) -> int:
        """Workers that have started once. One whose process is just being replaced counts."""
        return sum(worker.liveness.served_once for worker in self._workers)

    @property
    def unavailable(self) -> Iterator[str]:
        """For each worker whose clients wait longer than it takes to replace its process: why."""
        return (str(worker) for worker in self._supervised if worker.liveness.unavailable)

    @property
    def need_restart(self) -> bool:
        """Whether there has been no worker for a long time, because none can be started."""
        return all(worker.liveness.needs_restart for worker in self._workers)

    @property
    def problems(self) -> Iterator[str]:
        """Why clients are not served as they should be."""
        none_serves = not any(worker.liveness.serving for worker in self._workers)
        for worker in self._supervised:
            liveness = worker.liveness
            if liveness.unavailable or liveness.unserved or (none_serves and liveness.failures):
                yield str(worker)

    async def __aenter__(self) -> Workers:
        await self._tasks.__aenter__()
        places = [(f"worker-{worker.index}", self._supervise(worker)) for worker in self._workers]
        self._running = [
            self._tasks.create_task(each, name=name)
            for name, each in (*places, ("watch", self._watch()), ("tidy", self._tidy()))
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._running:
            task.cancel()
        # A task group would cancel them again if there was an error, while they end processes.
        await asyncio.wait(self._running)
        await self._tasks.__aexit__(kind, error, trace)

    async def ready(self) -> None:
        """Wait until every worker has started once."""
        for worker in self._workers:
            await worker.ready.wait()

    def send(self, worker: int, message: ToWorker, sock: socket.socket | None = None) -> None:
        """Send one worker a message; `sock` has to stay open until the `Close` of its frontend is
        sent."""
        self._workers[worker].tell(message, sock)

    def set_settings(self, settings: Callable[[int], Settings]) -> None:
        """Tell all workers, also those that start later, what is new in their settings."""
        before, self._settings = self._settings, settings
        for worker in self._workers:
            if settings(worker.index) != before(worker.index):
                worker.tell(settings(worker.index))

    def set_local_clients(self, clients: LocalClients) -> None:
        """Tell all workers, also those that start later, which clients count as this node or as
        pods."""
        if clients != self._clients:
            self._clients = clients
            self._tell_all(clients)

    def drain(self) -> None:
        """Stop accepting everywhere; flows go on."""
        self._draining.set()
        self._tell_all(Drain())

    async def drained(self) -> None:
        """Wait, after `drain`, until no flow is left."""
        for worker in self._workers:
            await worker.drained.wait()

    def status(self) -> tuple[WorkerStatus, ...]:
        return tuple(worker.status() for worker in self._workers)

    def counters(self) -> dict[ServicePortName, Counters]:
        """Sums over all workers, dead ones included."""
        return self._totals.totals

    @property
    def _supervised(self) -> list[Worker]:
        """The workers of which the process is replaced when it ends."""
        return [] if self._draining.is_set() else self._workers

    def _tell_all(self, message: ToWorker) -> None:
        for worker in self._workers:
            worker.tell(message)

    async def _supervise(self, worker: Worker) -> None:
        while not self._draining.is_set():
            try:
                ending = await self._run_process(worker)
            except Exception as error:
                log.exception("worker %d: unexpected error", worker.index)
                ending = f"could not be supervised ({error!r})"
            self._totals.ended(worker.index)
            self._ended(worker.index)
            worker.liveness.ended(ending)
            if self._draining.is_set():
                break
            worker.restarts += 1
            log.warning("worker %d %s; starting another", worker.index, ending)
            if failures := worker.liveness.failures:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._restart.delay(failures, random.random())):
                        await self._draining.wait()
        worker.drained.set()

    async def _run_process(self, worker: Worker) -> str:
        """Start a process and wait until it ends; returns how it ended."""
        worker.liveness.process_starting()
        try:
            process, sock = await self._start()
        except OSError as error:
            return f"could not be started ({error})"
        worker.pid = process.pid
        try:
            self._connect(worker, sock)
            await worker.ended.wait()
        finally:
            try:
                if worker.ready.is_set():
                    # Not for ever: one that is stopped (SIGSTOP) reports nothing until it goes on.
                    await worker.end(self._periods.end)
            finally:
                ending = await self._end(worker, process, sock)
        return worker.why_ended or ending

    async def _end(self, worker: Worker, process: Process, sock: socket.socket) -> str:
        """Close the channel of a process, and wait for its end."""
        try:
            worker.disconnect()
        finally:
            sock.close()
            ending = await reap(process, grace=self._periods.end)
        return ending

    def _connect(self, worker: Worker, sock: socket.socket) -> None:
        worker.connect(sock)
        worker.tell(self._settings(worker.index))
        worker.tell(self._clients)
        for opening, each in self._state(worker.index):
            worker.tell(opening, each)
        if self._draining.is_set():
            worker.tell(Drain())

    def _received(self, worker: Worker, message: FromWorker) -> None:
        match message:
            case Ready(engine):
                log.info("worker %d uses %s", worker.index, engine)
            case Report(ports):
                self._note_flow_limit(message.flow_limit)
                self._reported(worker.index, message)
                self._totals.add(worker.index, ports)
            case Records():
                self._recorded(worker.index, message)
            case Unserved(frontends):
                self._open_again(worker, frontends)
            case Drained():
                worker.active_flows = 0
                worker.drained.set()

    def _note_flow_limit(self, flow_limit: int) -> None:
        """Warn once: all workers have the same limit, and reach it at different times."""
        if flow_limit and not self._warned_of_flow_limit:
            self._warned_of_flow_limit = True
            log.warning(
                "the limit on open files lets each worker serve only %d flows at a time; raise it "
                "with ulimit -n, or LimitNOFILE in systemd",
                flow_limit,
            )

    def _open_again(self, worker: Worker, frontends: list[Frontend]) -> None:
        """Send the worker again what it could not open for lack of descriptors. This process still
        has the sockets."""
        before, worker.liveness.unserved = worker.liveness.unserved, len(frontends)
        if frontends and not before:
            log.warning("%s", worker)
        elif before and not frontends:
            log.info("worker %d serves all frontends again", worker.index)
        unserved = frozenset(frontends)
        for opening, sock in self._state(worker.index) if unserved else ():
            if opening.route.frontend in unserved:
                worker.tell(opening, sock)

    async def _watch(self) -> None:
        """Notice workers that hang. What counts is time in which this process could have received
        their messages: it, or the whole machine, may have been stopped as well."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(self._periods.look)
            now = loop.time()
            passed, before = min(now - before, 2 * self._periods.look), now
            for worker in self._workers:
                worker.liveness.time_passed(passed)
                if worker.liveness.reason_to_replace:
                    worker.give_up(worker.liveness.reason_to_replace)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(self._periods.tidy)
            try:
                self._totals.forget(self._wanted, asyncio.get_running_loop().time())
            except Exception:
                log.exception("cannot remove the counters of deleted Services; retrying")
