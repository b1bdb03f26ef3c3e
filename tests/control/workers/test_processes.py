"""Workers as real processes, with less patience than usual."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.control.workers.world import PATIENCE, WEB, eventually
from tests.descriptors import free_descriptors
from tests.io_uring import needs_io_uring
from uproxy.control.workers import Periods, Started, Workers, start_worker
from uproxy.control.workers.liveness import Timeouts
from uproxy.control.workers.process import reap
from uproxy.core.flows.flow_record import FlowRecord
from uproxy.core.route import Backend, Frontend, FrontendKind, Route
from uproxy.net.channel import Channel
from uproxy.net.messages import Drain, FromWorker, Open, Settings

HASTY = Timeouts(unresponsive=1.5, hung=3, start=PATIENCE)
CALM = Timeouts(unresponsive=60, hung=60)
LOOPS = """
import socket, sys
from uproxy.net.channel import Channel
from uproxy.net.messages import Ready, ToWorker
channel = Channel(socket.socket(fileno=int(sys.argv[1])), ToWorker)
channel.post(Ready("none"))
while True: pass
"""


HANGS = """
import os, sys
from uproxy.dataplane.worker import Worker
def report(self, report=Worker.report):
    report(self)
    while os.path.exists(sys.argv[2]): pass
Worker.report = report
from uproxy.dataplane.program import main
main(int(sys.argv[1]), ring=sys.argv[3] == "True")
"""
"""A worker that loops for ever while there is a file."""


def settings(worker: int) -> Settings:
    return Settings(
        worker=worker,
        workers=1,
        max_flows=1000,
        udp_timeout=1.0,
        tcp_idle_timeout=0.0,
        half_close_timeout=0.0,
        report_interval=0.1,
    )


class Site:
    """Listeners, a backend that greets, and workers."""

    def __init__(self) -> None:
        self.opens: list[tuple[Open, socket.socket]] = []
        self.backend = Backend("127.0.0.1", 0)

    def state(self, worker: int) -> list[tuple[Open, socket.socket]]:
        return self.opens

    def listen(self, stack: AsyncExitStack, number: int) -> list[tuple[Open, socket.socket]]:
        made = []
        for _ in range(number):
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            route = Route(
                frontend=Frontend("TCP", "127.0.0.1", sock.getsockname()[1]),
                owner=WEB,
                kind=FrontendKind.NODE_PORT,
                backends=(self.backend,),
            )
            made.append((Open(route), sock))
        self.opens += made
        return made


async def visit(sock: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()


@asynccontextmanager
async def site() -> AsyncIterator[tuple[Site, AsyncExitStack]]:
    def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    made = Site()
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        stack.callback(server.close)
        made.backend = Backend(*server.sockets[0].getsockname())
        yield made, stack


def run(program: str, *arguments: str) -> Started:
    """What plays a worker."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-c", program, str(theirs.fileno()), *arguments]
        return Started(subprocess.Popen(command, pass_fds=[theirs.fileno()]), ours)


def only(workers: Workers) -> int:
    (worker,) = workers.status()
    return worker.pid


def limit(pid: int, number: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, hard))


async def test_listeners_that_come_when_no_descriptor_is_free_are_served_in_the_end() -> None:
    """Those for which the reserve is enough at once, others when there is room again."""
    async with site() as (made, stack):
        workers = await stack.enter_async_context(Workers(settings, 1, made.state, timeouts=CALM))
        await workers.ready()
        limit(only(workers), 1 + max(map(int, os.listdir(f"/proc/{only(workers)}/fd"))))
        for opening, sock in made.listen(stack, 250):
            workers.send(0, opening, sock)
        # There may have been some room below the limit.
        few = re.compile("cannot serve (50|[1-4]?[0-9]) frontends").match
        await eventually(lambda: few(workers.status()[0].reason))
        limit(only(workers), 2000)
        await eventually(lambda: not workers.status()[0].reason)
        assert await visit(made.opens[-1][1]) == b"hello"
        assert workers.status()[0].restarts == 0


@pytest.mark.parametrize("free", range(12))
async def test_a_start_that_fails_for_want_of_descriptors_keeps_none(free: int) -> None:
    before = os.listdir("/proc/self/fd")
    with free_descriptors(free):
        try:
            process, sock = await start_worker()
        except OSError as error:
            ending = errno.errorcode[error.errno or 0]
        else:
            sock.close()
            ending = await reap(process, grace=PATIENCE)
    assert ending in ("EMFILE", "exited with code 0")
    assert os.listdir("/proc/self/fd") == before


async def test_one_that_is_stopped_leaves_its_clients_to_its_successor() -> None:
    async with site() as (made, stack):
        made.listen(stack, 1)
        workers = await stack.enter_async_context(Workers(settings, 1, made.state, timeouts=HASTY))
        await workers.ready()
        stopped = only(workers)
        os.kill(stopped, signal.SIGSTOP)
        assert await visit(made.opens[0][1]) == b"hello"
        assert only(workers) != stopped
        assert workers.status()[0].restarts == 1


async def test_one_that_loops_for_ever_is_killed() -> None:
    hang = True

    async def start() -> Started:
        return run(LOOPS) if hang else await start_worker()

    async with site() as (made, stack):
        made.listen(stack, 1)
        workers = Workers(
            settings,
            1,
            made.state,
            start=start,
            timeouts=HASTY._replace(unresponsive=0.3, hung=0.6),
            periods=Periods(look=0.1, end=0.1),
        )
        await stack.enter_async_context(workers)
        await workers.ready()
        looping, hang = only(workers), False
        await eventually(lambda: list(workers.unavailable))
        assert await visit(made.opens[0][1]) == b"hello"
        with pytest.raises(ProcessLookupError):
            os.kill(looping, 0)


@pytest.mark.parametrize("ring", [pytest.param(True, marks=needs_io_uring), False])
async def test_flows_of_one_that_hangs_do_not_end_as_if_they_were_complete(
    tmp_path: Path, ring: bool
) -> None:
    """What is killed ends them so (FIN); a signal reaches it even in an endless loop."""
    hang = tmp_path / "hang"

    async def start() -> Started:
        return run(HANGS, str(hang), str(ring))

    async with site() as (made, stack):
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        made.backend = Backend(*silent.getsockname())
        made.listen(stack, 1)
        workers = Workers(settings, 1, made.state, start=start, timeouts=HASTY)
        await stack.enter_async_context(workers)
        await workers.ready()
        reader, writer = await asyncio.open_connection(*made.opens[0][1].getsockname())
        stack.callback(writer.close)
        writer.write(b"question")
        backend, _ = await asyncio.get_running_loop().run_in_executor(None, silent.accept)
        with backend:
            assert backend.recv(8) == b"question"
            backend.send(b"half of an ")
            assert await reader.readexactly(11) == b"half of an "
            hang.touch()
            with pytest.raises(ConnectionResetError):
                async with asyncio.timeout(PATIENCE):
                    await reader.read()
            hang.unlink(missing_ok=True)
        await eventually(lambda: workers.status()[0].restarts == 1)


@pytest.mark.parametrize("ring", [pytest.param(True, marks=needs_io_uring), False])
async def test_flows_that_end_with_their_worker_are_reported(ring: bool) -> None:
    """What they have moved since the last report, and that they were cut."""
    records: list[FlowRecord] = []
    async with site() as (made, stack):
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        made.backend = Backend(*silent.getsockname())
        made.listen(stack, 1)
        workers = Workers(
            lambda each: msgspec.structs.replace(settings(each), flow_log_every=sys.maxsize),
            1,
            made.state,
            recorded=lambda _, sent: records.extend(sent.records),
            start=partial(start_worker, ring=ring),
            timeouts=CALM,
        )
        async with workers:
            await workers.ready()
            _, writer = await asyncio.open_connection(*made.opens[0][1].getsockname())
            stack.callback(writer.close)
            backend, _ = await asyncio.get_running_loop().run_in_executor(None, silent.accept)
            stack.enter_context(backend)
            await eventually(lambda: workers.active_flows == 1)
            writer.write(b"question")
            assert await asyncio.to_thread(backend.recv, 8) == b"question"
        assert workers.counters()[WEB].client_bytes == 8
        assert workers.counters()[WEB].active == 0
    assert [(each.client_bytes, each.is_bad) for each in records] == [(8, True)]


async def test_a_worker_logs_as_the_control_process_does() -> None:
    """Its first message is wrong, about which it complains."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(command: list[str], **settings: Any) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, **settings))
        return processes[-1]

    started = await start_worker(log_format="json", popen=start)
    with started.sock, processes[0] as process:
        kind: type[FromWorker] = FromWorker  # type: ignore[assignment]
        Channel(started.sock, kind).post(Drain())
        _, stderr = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    (line,) = stderr.splitlines()
    assert json.loads(line)["message"] == "cannot handle a message from the control process"
