"""Worker processes, from the control side: start, feed, restart, end.

Workers are started with exec, not forked, so they carry none of what this process has imported.
Each has one stream Unix socket to the control process; its end of file is how either side learns
of the other's death.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

import msgspec

from uproxy.channel import (
    Channel,
    ChannelClosed,
    Drain,
    Drained,
    FromWorker,
    LocalClients,
    Ready,
    Report,
    Settings,
    ToWorker,
)
from uproxy.core.backoff import Backoff
from uproxy.core.counters import Counters
from uproxy.core.route import ServicePortName
from uproxy.core.status import WorkerStatus
from uproxy.core.tally import Tally

log = logging.getLogger(__name__)

_NO_RING = ("--no-io-uring",)
_BOOT = (
    "import sys; path = sys.path; path.insert(0, sys.argv.pop(1)); import uproxy; "
    "path.append(path.pop(0)); from uproxy.dataplane.__main__ import run; run()"
)

_STABLE = 5.0
"""Seconds after which a worker counts as started well, and the next restart is at once again."""
_RESTART = Backoff(initial=0.05, maximum=5.0, jitter=0.2)
_TIDY = 30.0
"""Seconds between looks for counts that nobody wants any more."""
_END = 1.0
"""Seconds that a worker gets to end after its channel was closed, before it is killed."""


class Worker:
    """One place among the workers; the process in it may change."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.channel: Channel[FromWorker] | None = None
        self.pid = 0
        self.restarts = 0
        self.engine = ""
        """What it relays by, once that is known."""
        self.active_flows = 0
        self.most_flows = 0
        """Where it can open too few files for its part of --max-flows; else 0."""
        self.outbox: list[tuple[ToWorker, socket.socket | None]] = []
        """What was said since the event loop's last turn: sent together, it costs a tenth."""
        self.ready = asyncio.Event()
        self.drained = asyncio.Event()
        """Set when it has no flow left after `drain`, or is dead and not to be replaced."""

    def __repr__(self) -> str:
        state = "ready" if self.ready.is_set() else "starting"
        return f"<Worker {self.index} pid {self.pid} {state}, {self.active_flows} flows>"


class Workers:
    """An async context manager that keeps `count` worker processes running while it is open.

    `state` yields, for the index of a worker, the messages and descriptors that bring a new
    process up to date. Leaving ends the processes, flows and all; drain first.
    """

    def __init__(
        self,
        settings: Callable[[int], Settings],
        count: int,
        state: Callable[[int], Iterable[tuple[ToWorker, socket.socket]]],
        *,
        ring: bool = True,
        wanted: Callable[[ServicePortName], bool] = lambda _: True,
    ) -> None:
        """`ring`: workers relay by io_uring, where the kernel grants it. `wanted`: whether a port
        still exists; the counts of others are forgotten."""
        self._wanted = wanted
        self._ring = ring
        self._settings = settings
        self._state = state
        self._workers = [Worker(index) for index in range(count)]
        self._clients = LocalClients((), ())
        self._tally = Tally()
        self._draining = False
        self._tasks = asyncio.TaskGroup()
        self._supervisors: list[asyncio.Task[None]] = []

    @property
    def count(self) -> int:
        return len(self._workers)

    @property
    def backlog(self) -> int:
        """Messages that wait to be sent, over all workers."""
        return sum(
            each.channel.unsent + len(each.outbox)
            for each in self._workers
            if each.channel is not None
        )

    @property
    def active_flows(self) -> int:
        return sum(worker.active_flows for worker in self._workers)

    async def __aenter__(self) -> Workers:
        await self._tasks.__aenter__()
        self._supervisors = [
            self._tasks.create_task(self._supervise(worker), name=f"worker-{worker.index}")
            for worker in self._workers
        ]
        self._supervisors.append(self._tasks.create_task(self._forget(), name="forget"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._supervisors:
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def started(self) -> bool:
        """Whether every worker has started once; a successor is not waited for."""
        return all(worker.ready.is_set() or worker.restarts for worker in self._workers)

    async def ready(self) -> None:
        """Wait until every worker has started once."""
        for worker in self._workers:
            await worker.ready.wait()

    def send(self, worker: int, message: ToWorker, sock: socket.socket | None = None) -> None:
        """Tell one worker. One that is just being replaced learns it all when it starts."""
        told = self._workers[worker]
        if told.channel is None:
            return
        if not told.outbox:
            asyncio.get_running_loop().call_soon(self._empty_outbox, told)
        told.outbox.append((message, sock.dup() if sock is not None else None))

    def set_local_clients(self, clients: LocalClients) -> None:
        """Tell all workers, present and future, who counts as this node or its pods."""
        if clients == self._clients:
            return
        self._clients = clients
        for worker in self._workers:
            self._send(worker, [clients])

    def drain(self) -> None:
        """Stop accepting everywhere; flows go on."""
        self._draining = True
        for worker in self._workers:
            self._send(worker, [Drain()])

    async def drained(self) -> None:
        """Wait, after `drain`, until no flow is left."""
        for worker in self._workers:
            await worker.drained.wait()

    def status(self) -> tuple[WorkerStatus, ...]:
        return tuple(
            WorkerStatus(
                index=each.index,
                pid=each.pid,
                restarts=each.restarts,
                active_flows=each.active_flows,
                engine=each.engine,
                most_flows=each.most_flows or msgspec.UNSET,
            )
            for each in self._workers
        )

    def counters(self) -> dict[ServicePortName, Counters]:
        """Sums over all workers, dead ones included."""
        return self._tally.totals

    async def _supervise(self, worker: Worker) -> None:
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            started = loop.time()
            ending = await self._live(worker)
            if self._draining:
                worker.drained.set()
                return
            failures = 0 if loop.time() - started > _STABLE else failures + 1
            worker.restarts += 1
            log.warning("worker %d %s; starting another", worker.index, ending)
            if failures:
                await asyncio.sleep(_RESTART.delay(failures, random.random()))

    async def _live(self, worker: Worker) -> str:
        """Run one process until it ends; returns how that went."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return f"could not be started ({error.strerror})"
        with ours:
            try:
                process = await _start(theirs, ring=self._ring)
            except OSError as error:
                return f"could not be started ({error.strerror})"
            finally:
                theirs.close()
            worker.pid = process.pid
            try:
                self._connect(worker, ours)
                return _ending(await process.wait())
            finally:
                self._disconnect(worker)
                ours.close()
                await _reap(process)

    def _connect(self, worker: Worker, sock: socket.socket) -> None:
        kind: type[FromWorker] = FromWorker  # type: ignore[assignment]
        worker.channel = Channel(sock, kind)
        asyncio.get_running_loop().add_reader(sock, self._receive, worker)
        messages: list[ToWorker] = [self._settings(worker.index), self._clients]
        attached: list[socket.socket] = []
        for message, each in self._state(worker.index):
            messages.append(message)
            attached.append(each.dup())
        if self._draining:
            messages.append(Drain())
        self._send(worker, messages, attached)

    def _disconnect(self, worker: Worker) -> None:
        channel, worker.channel = worker.channel, None
        if channel is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(channel.fileno())
            loop.remove_writer(channel.fileno())
            channel.close()
        self._send(worker, [])
        self._tally.ended(worker.index)
        worker.active_flows = 0
        worker.ready.clear()

    def _empty_outbox(self, worker: Worker) -> None:
        if worker.outbox:
            self._send(worker, [])

    def _send(
        self, worker: Worker, messages: list[ToWorker], attached: list[socket.socket] | None = None
    ) -> None:
        """`attached` are duplicates that the channel owns from here on: a listener may be closed
        while its descriptor still waits to be sent."""
        channel = worker.channel
        waiting, worker.outbox = worker.outbox, []
        descriptors = [sock for _, sock in waiting if sock is not None] + (attached or [])
        if channel is None:
            for sock in descriptors:
                sock.close()
            return
        try:
            channel.send([*(message for message, _ in waiting), *messages], descriptors)
        except ChannelClosed:
            return  # Its supervisor is about to notice.
        if channel.wants_write:
            asyncio.get_running_loop().add_writer(channel.fileno(), self._flush, worker)

    def _flush(self, worker: Worker) -> None:
        channel = worker.channel
        if channel is None:
            return
        with contextlib.suppress(ChannelClosed):
            channel.flush()
            if channel.wants_write:
                return
        asyncio.get_running_loop().remove_writer(channel.fileno())

    def _receive(self, worker: Worker) -> None:
        if worker.channel is None:
            return
        try:
            messages = worker.channel.receive()
        except ChannelClosed:
            asyncio.get_running_loop().remove_reader(worker.channel.fileno())
            return
        for message, _ in messages:
            match message:
                case Ready(engine):
                    worker.engine = engine
                    log.info("worker %d relays by %s", worker.index, engine)
                    worker.ready.set()
                case Report():
                    worker.active_flows = message.active
                    worker.most_flows = message.most
                    self._tally.add(worker.index, message.ports)
                case Drained():
                    worker.active_flows = 0
                    worker.drained.set()

    async def _forget(self) -> None:
        """Now and then, drop the counts of ports that are gone."""
        while True:
            await asyncio.sleep(_TIDY)
            self._tally.forget(self._wanted, asyncio.get_running_loop().time())


async def _start(channel: socket.socket, *, ring: bool) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *_command(),
        *(str(channel.fileno()), *_NO_RING[ring:]),
        pass_fds=[channel.fileno()],
        stdin=asyncio.subprocess.DEVNULL,
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
    return [sys.executable, "-P", *inherited, "-c", _BOOT, str(Path(__file__).parents[1])]


async def _reap(process: asyncio.subprocess.Process) -> None:
    """End a process whose channel is closed, by its own means or else by ours."""
    try:
        async with asyncio.timeout(_END):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended by itself with exit code {code}"
