"""Whatever happens to workers and to what is said to them: in the end each knows what is true."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import struct
from random import Random
from typing import Any

import pytest

from tests.control.workers.world import CALM, Played, World, eventually, route, world
from uproxy.core.backoff import Backoff
from uproxy.core.route import Frontend, Route
from uproxy.net.messages import Close, LocalClients, Open, ToWorker, Unserved, Update

SHORT = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS, errno.EMFILE, errno.EAGAIN)
TURNS = 150
WORKERS = 2


class Unreliable:
    """Our end of a channel, whose sends fail or are cut short by chance."""

    def __init__(self, sock: socket.socket, chances: Chances) -> None:
        self._sock = sock
        self._chances = chances

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: bytearray) -> int:
        return self._sock.send(self._chances.part(data))

    def sendmsg(self, buffers: list[bytearray], *arguments: Any) -> int:
        return self._sock.sendmsg([self._chances.part(buffers[0])], *arguments)


class Knowing(dict[Frontend, Route]):
    """What a process has been told, and has understood."""

    def __init__(self, process: Played, chances: Chances) -> None:
        super().__init__()
        self.process = process
        self.chances = chances
        self.lost: set[Frontend] = set()
        self.clients = LocalClients((), ())
        self._done = 0

    def learn(self) -> None:
        """Take notice of what was heard; some descriptors get lost, and are asked for again."""
        heard = self.process.heard[self._done :]
        self._done += len(heard)
        for message in heard:
            self._take(message)
        if self.lost and self.process.alive:
            self.process.channel.post(Unserved(sorted(self.lost)))

    def _take(self, message: ToWorker) -> None:
        match message:
            case Open(what) if self.chances.happens(0.1):
                self.lost.add(what.frontend)
            case Open(what):
                self.lost.discard(what.frontend)
                self[what.frontend] = what
            case Update(what) if what.frontend in self:
                self[what.frontend] = what
            case Close(frontend):
                self.lost.discard(frontend)
                self.pop(frontend, None)
            case LocalClients():
                self.clients = message


class Chances:
    """A world in which everything goes wrong now and then, until it is calm."""

    def __init__(self, seed: int, made: World) -> None:
        self.random = Random(seed)
        self.made = made
        self.calm = False
        self.known: dict[Played, Knowing] = {}
        self.clients = LocalClients((), ())
        made.plays = self.play
        made.wrap = lambda sock: Unreliable(sock, self)  # type: ignore[assignment, return-value]

    def happens(self, chance: float) -> bool:
        return not self.calm and self.random.random() < chance

    def part(self, data: bytearray) -> memoryview:
        if self.happens(0.2):
            code = self.random.choice(SHORT)
            raise BlockingIOError(code, "") if code == errno.EAGAIN else OSError(code, "")
        view = memoryview(data)
        return view[: self.random.randrange(1, len(data) + 1)] if self.happens(0.3) else view

    def play(self, process: Played) -> None:
        self.known[process] = Knowing(process, self)
        process.obedient = not self.happens(0.3)
        if self.happens(0.1):
            process.end(1)
            return
        process.begin()
        if not self.happens(0.3):
            process.listen()

    def step(self) -> None:
        act = self.random.choice(
            [self.open] * 6 + [self.update] * 12 + [self.close] * 5 + [self.hear] * 6 + [self.harm]
        )
        act()

    def say(self, message: ToWorker, sock: socket.socket | None = None) -> None:
        for worker in range(WORKERS):
            self.made.workers.send(worker, message, sock)

    def open(self) -> None:
        taken = {each.frontend.port for each in self.made.routes}
        port = self.random.choice([port for port in range(1, 20 + len(taken)) if port not in taken])
        self.made.routes.append(route(port, self.random.randrange(1000)))
        self.say(Open(self.made.routes[-1]), self.made.sock)

    def update(self) -> None:
        if self.made.routes:
            number = self.random.randrange(len(self.made.routes))
            port = self.made.routes[number].frontend.port
            self.made.routes[number] = route(port, self.random.randrange(1000))
            self.say(Update(self.made.routes[number]))
        else:
            self.clients = LocalClients((str(self.random.random()),), ())
            self.made.workers.set_local_clients(self.clients)

    def close(self) -> None:
        if self.made.routes:
            gone = self.made.routes.pop(self.random.randrange(len(self.made.routes)))
            self.say(Close(gone.frontend, 0.0))

    def harm(self) -> None:
        process = self.random.choice(list(self.known)) if self.known else None
        if process is None or not process.alive:
            self.made.errors.append(OSError(errno.EAGAIN, "no more processes"))
        elif self.random.random() < 0.3:
            self._rave(process, struct.pack("!I", 5) + b"\x91" + self.random.randbytes(4))
        elif self.random.random() < 0.3:
            self._rave(process, struct.pack("!I", 500) + self.random.randbytes(100))
            process.end(-signal.SIGKILL)
        else:
            process.end(-signal.SIGSEGV)

    def _rave(self, process: Played, data: bytes) -> None:
        with contextlib.suppress(OSError):  # It may be about to be ended.
            process.sock.send(data)

    def hear(self) -> None:
        for process, knowing in self.known.items():
            if process.alive:
                process.listen()
                knowing.learn()

    def all_is_known(self) -> bool:
        self.hear()
        alive = [each for each in self.known.values() if each.process.alive]
        expected = {each.frontend: each for each in self.made.routes}
        return len(alive) == WORKERS and all(
            each == expected and each.clients == self.clients and not each.lost for each in alive
        )


@pytest.mark.parametrize("seed", range(15))
async def test_in_the_end_each_worker_knows_what_is_true(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    soon = Backoff(initial=0.001, maximum=0.002)
    async with world(WORKERS, timeouts=CALM, restart=soon) as made:
        chances = Chances(seed, made)
        for _ in range(TURNS):
            for _ in range(chances.random.randrange(6)):
                chances.step()
            await asyncio.sleep(chances.random.choice((0, 0, 0.001)))
            if chances.random.random() < 0.1:
                chances.hear()
                await made.workers.ready()
        chances.calm = True
        made.errors.clear()
        await eventually(chances.all_is_known)
        status = made.workers.status()
    assert not [each for each in caplog.records if each.exc_info], "nothing unexpected"
    assert sum(each.restarts for each in status) > 0
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before
