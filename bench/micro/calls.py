"""How many calls a short connection takes: of Python functions, built-in functions and the kernel.

Counts do not depend on how busy the machine is, so a test can compare them with a bound. A worker
gets one connection after the other. The client and the worker share a processor and never preempt
each other (SCHED_BATCH, sched(7)): each runs until it waits, so that events come in the same order
each time.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from bench.micro import ptrace
from bench.wire.places import Place, free_place
from bench.wire.uproxy_peer import HERE
from uproxy.core.protocols import TCP
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.net.channel import Channel
from uproxy.net.listening import open_listeners
from uproxy.net.messages import FromWorker, Open, Settings

ENGINES: Final[Mapping[str, Sequence[str]]] = {"io_uring": (), "epoll": ("--no-io-uring",)}
_WARM_UP = 50
_COUNTED = 200
"""Operations. The report that a worker makes now and then is spread over them."""
_SWITCH = signal.SIGUSR1
_PATIENCE = 15.0
_REQUEST, _ANSWER = b"q" * 64, b"a" * 64
_SETTINGS = Settings(
    worker=0,
    workers=1,
    max_flows=1000,
    udp_timeout=30.0,
    tcp_idle_timeout=0.0,
    half_close_timeout=0.0,
    report_interval=3600.0,
)


@dataclass(frozen=True, slots=True)
class Calls:
    """For one operation, by name."""

    python: Mapping[str, float]
    builtin: Mapping[str, float]
    """Functions and methods that are written in C. Classes and ctypes functions are not among them,
    because the interpreter does not tell profilers of those."""
    system: Mapping[str, float]

    def totals(self) -> dict[str, float]:
        """The sum of each kind."""
        kinds = {"python": self.python, "builtin": self.builtin, "system": self.system}
        return {kind: sum(found.values()) for kind, found in kinds.items()}


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that counts, and the two ends of its only route."""

    process: subprocess.Popen[bytes]
    place: Place
    backend: socket.socket
    result: int

    def switch(self) -> dict[str, dict[str, int]]:
        """Begin or end the counting; returns what was counted."""
        self.process.send_signal(_SWITCH)
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self.result, 1 << 20) or _ended()
        found: dict[str, dict[str, int]] = json.loads(line)
        return found


Operation = Callable[[], None]


@contextmanager
def short_connection(worker: Worker) -> Iterator[Operation]:
    """A connection with one request, which the backend ends with its answer."""

    def operation() -> None:
        with socket.create_connection(worker.place, _PATIENCE) as client:
            client.send(_REQUEST)
            accepted, _ = worker.backend.accept()
            with accepted:
                accepted.recv(4096)
                # The answer and the end come in one segment, so that the worker never sees the
                # one without the other.
                accepted.send(_ANSWER, socket.MSG_MORE)
            while client.recv(4096):
                pass

    yield operation


@contextmanager
def request(worker: Worker) -> Iterator[Operation]:
    """A request and its answer, over a connection that stays open."""
    with socket.create_connection(worker.place, _PATIENCE) as client:
        accepted, _ = worker.backend.accept()

        def operation() -> None:
            client.send(_REQUEST)
            accepted.recv(4096)
            accepted.send(_ANSWER)
            client.recv(4096)

        with accepted:
            yield operation


OPERATIONS: Final = {"connection": short_connection, "request": request}


def count(engine: str, operation: str) -> Calls:
    """What an operation takes with that engine. Raises OSError where it cannot be traced."""
    with counting_worker(engine) as worker, OPERATIONS[operation](worker) as work:
        for _ in range(_WARM_UP):
            work()
        worker.switch()
        for _ in range(_COUNTED):
            work()
        called = worker.switch()
        system = _system_calls(worker.process.pid, work)
    return Calls(*(_each(found) for found in (called["python"], called["builtin"], system)))


@contextmanager
def counting_worker(engine: str) -> Iterator[Worker]:
    """A worker that serves one route, by io_uring or by epoll."""
    place, target = free_place(), free_place()
    frontend = Frontend(TCP, *place)
    route = Route(
        frontend=frontend,
        owner=ServicePortName("default", "web", "", TCP),
        kind=FrontendKind.CLUSTER_IP,
        backends=(Backend(*target),),
    )
    with ExitStack() as stack:
        stack.enter_context(_without_preemption())
        backend = stack.enter_context(socket.create_server(target))
        backend.settimeout(_PATIENCE)
        result, theirs = os.pipe()
        stack.callback(os.close, result)
        ours, channel_end = socket.socketpair()
        kind: type[FromWorker] = FromWorker  # type: ignore[assignment]
        channel = Channel(ours, kind)
        process = _started(channel_end.fileno(), theirs, ENGINES[engine])
        stack.callback(_end, process, channel)
        os.close(theirs)
        channel_end.close()
        (listener,) = open_listeners(frontend, 1)
        channel.post(_SETTINGS)
        channel.offer([(Open(route), stack.enter_context(listener))])
        yield Worker(process, place, backend, result)


def _started(channel: int, result: int, options: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.micro.traced_worker", str(channel), str(result)]
    return subprocess.Popen([*command, *options], pass_fds=(channel, result), cwd=HERE.root)


def _end(process: subprocess.Popen[bytes], channel: Channel[FromWorker]) -> None:
    channel.close()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _without_preemption() -> Iterator[None]:
    """This process, and what it starts meanwhile, take turns on one processor."""
    processors, policy = os.sched_getaffinity(0), os.sched_getscheduler(0)
    os.sched_setaffinity(0, {max(processors)})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, os.sched_param(0))
        os.sched_setaffinity(0, processors)


def _system_calls(pid: int, work: Operation) -> Counter[str]:
    """ptrace(2) wants one thread for all it does, so the operations are another thread's."""

    def all_operations() -> None:
        try:
            for _ in range(_COUNTED):
                work()
        finally:
            os.kill(pid, ptrace.END)

    operations = threading.Thread(target=all_operations)
    ptrace.seize(pid)
    operations.start()
    try:
        return ptrace.count(pid)
    finally:
        operations.join()


def _each(found: Mapping[str, int]) -> dict[str, float]:
    return {name: times / _COUNTED for name, times in Counter(found).most_common()}


def _ended() -> bytes:
    raise ChildProcessError("the worker has ended")


def totals_table(found: Mapping[tuple[str, str], Calls]) -> Table:
    """A line for each operation and engine."""
    table = Table("calls for each", "engine", "Python", "built-in", "system")
    for (operation, engine), calls in found.items():
        sums = (f"{total:.1f}" for total in calls.totals().values())
        table.add_row(operation, engine, *sums)
    return table


def names_table(operation: str, engine: str, calls: Calls) -> Table:
    """Every function that is called at least once in ten operations."""
    table = Table("kind", "called", "times", title=f"{operation}, {engine}", title_justify="left")
    kinds = {"Python": calls.python, "built-in": calls.builtin, "system": calls.system}
    for kind, found in kinds.items():
        for name, times in found.items():
            if times >= 0.1:
                table.add_row(kind, name, f"{times:.2f}")
    return table
