"""Workers whose processes are played by the test."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from uproxy.control.workers import Periods, Started, Workers
from uproxy.control.workers.liveness import Timeouts
from uproxy.core.flows.counters import Counters
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.net.channel import Channel
from uproxy.net.messages import Open, Ready, Records, Report, Settings, ToWorker

PATIENCE = 15.0
"""Seconds until a condition counts as never met."""

WEB = ServicePortName("default", "web", "http", "TCP")


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def route(port: int, backend: int = 1) -> Route:
    return Route(
        frontend=Frontend("TCP", "127.0.0.1", port),
        owner=WEB,
        kind=FrontendKind.NODE_PORT,
        backends=(Backend("10.0.0.1", backend),),
    )


class Played:
    """A worker's process, as the control process sees it."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self.sock = sock
        kind: type[ToWorker] = ToWorker  # type: ignore[assignment]
        self.channel = Channel(sock, kind)
        self.heard: list[ToWorker] = []
        self.descriptors = 0
        """That came with what was heard."""
        self.obedient = True
        """It ends with its channel."""
        self.killable = True
        self._code: int | None = None

    def __repr__(self) -> str:
        return f"<Played {self.pid}, heard {len(self.heard)}>"

    @property
    def alive(self) -> bool:
        return self._code is None

    def listen(self) -> None:
        """Hear what is said from now on."""
        if not self.channel.ended:
            asyncio.get_running_loop().add_reader(self.channel.fileno(), self._receive)

    def begin(self) -> None:
        """Say that it has started."""
        self.channel.post(Ready("epoll"))

    def beat(self) -> None:
        self.channel.post(Report([], 0))

    def keep_beating(self) -> None:
        if self.alive:
            self.beat()
            asyncio.get_running_loop().call_later(0.05, self.keep_beating)

    def count(self, flows: int, active: int) -> None:
        self.channel.post(Report([(WEB, Counters(flows=flows, active=active))], active))

    def end(self, code: int = 0) -> None:
        if self.alive:
            asyncio.get_running_loop().remove_reader(self.channel.fileno())
            self.channel.close()
            self._code = code

    def send_signal(self, sig: int) -> None:
        if not self.alive:
            raise ProcessLookupError
        if sig == signal.SIGKILL and self.killable:
            self.end(-signal.SIGKILL)

    def poll(self) -> int | None:
        return self._code

    def _receive(self) -> None:
        for message, descriptor in self.channel.receive():
            self.heard.append(message)
            if descriptor is not None:
                self.descriptors += 1
                os.close(descriptor)
        if self.channel.ended:
            asyncio.get_running_loop().remove_reader(self.channel.fileno())
            if self.obedient:
                self.end()


class World:
    """Workers, their processes so far, and what the next start meets."""

    def __init__(self, count: int, settings: dict[str, Any]) -> None:
        self.processes: list[Played] = []
        self.errors: list[Exception] = []
        """What the next starts raise, each once."""
        self.broken: Exception | None = None
        """What every start raises."""
        self.routes: list[Route] = []
        self.sock = socket.socket()
        """Stands for every listener."""
        self.plays: Callable[[Played], None] = _healthy
        """What a process does first."""
        self.wrap: Callable[[socket.socket], socket.socket] = lambda sock: sock
        """Puts something else in the place of our end of a channel."""
        self.recorded: Callable[[int, Records], None] = lambda *_: None
        """Takes the records of flows that workers send."""
        self.workers = Workers(
            self._settings,
            count,
            self._state,
            recorded=lambda *each: self.recorded(*each),
            start=self._start,
            **settings,
        )

    def opens(self) -> list[Open]:
        return [Open(each) for each in self.routes]

    async def _start(self) -> Started:
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        if self.broken is not None:
            raise self.broken
        ours, theirs = socket.socketpair()
        process = Played(1000 + len(self.processes), theirs)
        self.processes.append(process)
        self.plays(process)
        return Started(process, self.wrap(ours))

    def _settings(self, worker: int) -> Settings:
        return Settings(
            worker=worker,
            workers=1,
            max_flows=10,
            udp_timeout=1.0,
            tcp_idle_timeout=0.0,
            half_close_timeout=0.0,
        )

    def _state(self, worker: int) -> list[tuple[Open, socket.socket]]:
        return [(each, self.sock) for each in self.opens()]


def _healthy(process: Played) -> None:
    process.listen()
    process.begin()
    process.keep_beating()


FAST = Timeouts(unresponsive=0.2, hung=0.4, start=PATIENCE, stable=0.1, give_up=0.5)
"""For tests of what happens when nothing is heard."""
CALM = Timeouts(unresponsive=60, hung=60, start=60, stable=0.1, give_up=60)


@asynccontextmanager
async def world(
    count: int = 1,
    *,
    routes: int = 0,
    timeouts: Timeouts = CALM,
    plays: Callable[[Played], None] = _healthy,
    **settings: Any,
) -> AsyncIterator[World]:
    """Workers that start as the context does."""
    settings = {"periods": Periods(look=0.02, tidy=0.02, end=0.1)} | settings
    made = World(count, settings | {"timeouts": timeouts})
    made.plays = plays
    made.routes = [route(port) for port in range(1, routes + 1)]
    with made.sock:
        try:
            async with made.workers:
                yield made
        finally:
            for process in made.processes:
                process.end()
