"""Models of worker processes, which do what the messages ask for unless a fault is injected."""

from __future__ import annotations

import array
import asyncio
import random
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tests.faults.injection import Bug, FaultInjector
from tests.faults.kernel import File, Kernel, current
from tests.faults.recording_workers import Serving
from tests.faults.sockets import Socket
from uproxy.core.flows.counters import Counters
from uproxy.core.route import Frontend, ServicePortName
from uproxy.net.messages import (
    Close,
    Drain,
    Drained,
    Open,
    Ready,
    Report,
    Settings,
    ToWorker,
    Unserved,
    Update,
)

_HEADER: Final = struct.Struct("!I")
_LIMIT: Final = 64
"""Descriptors of a worker: few, so that they run out."""
_GARBAGE: Final = (
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x01\xc1",
    b"\x00\x00\x00\x05\x91\x92\xa4Nope",
    b"\x00\x00\x00\x00",
    b"\x00\x00\x00\x03\x91\x91\xc0",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x7f\xff\xff\xff" + b"x" * 5000,
)
_ODD: Final = (
    Report([(ServicePortName("default", "nobody", "", "TCP"), Counters())], -7),
    Report([], 1 << 60),
    Ready("steam"),
    Drained(),
    Ready(""),
)


@dataclass(eq=False)
class Worker:
    """One process."""

    kernel: Kernel
    faults: FaultInjector
    rng: random.Random
    pid: int
    returncode: int | None = None
    serving: dict[Frontend, Serving] = field(default_factory=dict)
    unserved: set[Frontend] = field(default_factory=set)
    settings: Settings | None = None
    hung: bool = False
    """It does nothing any more."""
    stopped: bool = False
    """By SIGSTOP, so that SIGCONT helps."""

    def __post_init__(self) -> None:
        self.process = self.kernel.process(f"worker {self.pid}", _LIMIT)
        self._received = bytearray()
        self._unsent = bytearray()
        self._was_unserved = False
        self._descriptors: list[int] = []
        self._cut = False
        self._sock: Socket | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._decoder = msgspec.msgpack.Decoder(list[ToWorker])

    def begin(self, file: File) -> None:
        """It inherits its end of the channel, and takes a moment to start."""
        with self.kernel.running(self.process):
            self._sock = Socket(self.kernel, file)
        self._later(0.2, self._start)

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is not None:
            return
        self.kernel.tell(f"worker {self.pid} gets {signal.Signals(number).name}")
        if number == signal.SIGKILL:
            self.end(-number)
        elif number == signal.SIGCONT and self.stopped:
            self.hung = self.stopped = False
            self._start()

    def end(self, code: int) -> None:
        """Whatever the reason."""
        if self.returncode is not None:
            return
        self.kernel.tell(f"worker {self.pid} ends: {code}")
        self.returncode = code
        for timer in self._timers:
            timer.cancel()
        loop = asyncio.get_running_loop()
        assert self._sock is not None
        loop.remove_reader(self._sock.fileno())
        self.process.end()

    def hang(self) -> None:
        """For ever, or until somebody continues it."""
        self.hung = True
        self.stopped = self.rng.random() < 0.5
        self.kernel.tell(f"worker {self.pid} {'is stopped' if self.stopped else 'hangs'}")
        self._mute()

    def _start(self) -> None:
        if self.faults.happens("die"):
            self.end(self.rng.choice((1, -9, -11)))
        elif self.faults.happens("hang"):
            self.hang()
        else:
            assert self._sock is not None
            asyncio.get_running_loop().add_reader(self._sock.fileno(), self._as_me(self._receive))

    def _receive(self) -> None:
        assert self._sock is not None
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(65536, 4096)
        except BlockingIOError:
            return
        if not data:
            self.end(0)
            return
        for _, _, numbers in ancillary:
            self._descriptors += array.array("i", numbers)
        self._cut = self._cut or bool(flags & socket.MSG_CTRUNC)
        self._received += data
        self._take_frames()

    def _take_frames(self) -> None:
        while len(self._received) >= _HEADER.size:
            (size,) = _HEADER.unpack_from(self._received)
            if len(self._received) < _HEADER.size + size:
                return
            frame = bytes(self._received[_HEADER.size : _HEADER.size + size])
            del self._received[: _HEADER.size + size]
            for message in self._decoder.decode(frame):
                self._heed(message)
            self._cut = False

    def _heed(self, message: ToWorker) -> None:
        match message:
            case Settings():
                self.settings = message
                self._say(Ready("epoll"))
                self._later(message.report_interval, self._report)
            case Open(route):
                self._open(message)
            case Update(route):
                if route.frontend in self.serving:
                    self.serving[route.frontend].route = route
            case Close(frontend):
                self._close(frontend)
            case Drain():
                self._say(Drained())

    def _open(self, message: Open) -> None:
        frontend = message.route.frontend
        if not self._descriptors:
            assert self._cut, "an Open without a descriptor"
            self.unserved.add(frontend)
            return
        number = self._descriptors.pop(0)
        file = self.process.files[number]
        before = self.serving.get(frontend)
        if before is not None:
            self.process.close(number)
            before.route = message.route
        else:
            self.serving[frontend] = Serving(message.route, file, number)
        self.unserved.discard(frontend)

    def _close(self, frontend: Frontend) -> None:
        before = self.serving.pop(frontend, None)
        if before is not None:
            self.process.close(before.number)
        self.unserved.discard(frontend)

    def _report(self) -> None:
        assert self.settings is not None
        if self.faults.happens("die"):
            self.end(self.rng.choice((1, -9, -11)))
            return
        if self.faults.happens("hang"):
            self.hang()
        if not self.hung:
            if self.faults.happens("babble"):
                self._send(self.rng.choice(_GARBAGE))
            if self.faults.happens("odd"):
                self._say(self.rng.choice(_ODD))
            if self.unserved or self._was_unserved:
                self._was_unserved = bool(self.unserved)
                self._say(Unserved(sorted(self.unserved)))
            self._say(Report([], 0))
        self._later(2 * self.settings.report_interval, self._report)

    def _say(self, message: object) -> None:
        body = msgspec.msgpack.encode([message])
        self._send(_HEADER.pack(len(body)) + body)

    def _send(self, data: bytes) -> None:
        assert self._sock is not None
        self._unsent += data
        with suppress(OSError):
            del self._unsent[: self._sock.send(self._unsent)]

    def _mute(self) -> None:
        assert self._sock is not None
        asyncio.get_running_loop().remove_reader(self._sock.fileno())

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(seconds, self._as_me(act)))

    def _as_me(self, act: Callable[[], None]) -> Callable[[], None]:
        def acting() -> None:
            if self.returncode is None:
                token = current.set(self.process)
                try:
                    act()
                finally:
                    current.reset(token)

        return acting


class Processes:
    """All there ever were."""

    def __init__(self, kernel: Kernel, faults: FaultInjector, rng: random.Random) -> None:
        self.all: list[Worker] = []
        self._kernel = kernel
        self._faults = faults
        self._rng = rng

    @property
    def living(self) -> list[Worker]:
        return [each for each in self.all if each.returncode is None]

    def spawn(self, words: Any, *, pass_fds: Any = (), **_: Any) -> Worker:
        """In the place of subprocess.Popen."""
        (number,) = pass_fds
        file = self._kernel.control.files[number]
        self._kernel.call("spawn")
        if self._faults.happens("bug"):
            raise Bug("spawn")
        made = Worker(self._kernel, self._faults, self._rng, pid=1000 + len(self.all))
        made.begin(file)
        self.all.append(made)
        return made
