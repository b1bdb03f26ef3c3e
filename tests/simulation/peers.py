"""Clients and backends: what they send, how they read, and how they end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final

from tests.simulation.streams import Stream
from tests.simulation.world import Violation, World

_PATTERN: Final = Random(1).randbytes(1 << 16)
_LONGEST: Final = 4 << 20


class End(Enum):
    """How a peer ends when it has sent all."""

    FIN = "ends its stream, and waits for the end of the other's"
    CLOSE = "closes"
    RESET = "resets"


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """What a peer does."""

    data: bytes
    piece: int
    """Bytes that it sends in one go, at most."""
    pause: float
    """Seconds between two of them, at most."""
    waits: int = 0
    """Bytes to receive before sending anything."""
    reads: int
    """Bytes that it reads in one go, at most."""
    rest: float
    """Seconds between two reads, at most."""
    stall: tuple[int, float] | None = None
    """After how many bytes it stops reading, and for how many seconds."""
    end: End = End.FIN
    end_after: float = 0.0
    """Seconds between the last byte and the end."""
    gives_up: float | None = None
    """Seconds after which it ends whatever has happened: by a reset, or by closing."""

    def __str__(self) -> str:
        text = f"sends {len(self.data)} by {self.piece}, reads by {self.reads}, {self.end.value}"
        for name in ("pause", "waits", "rest", "stall", "end_after", "gives_up"):
            if value := getattr(self, name):
                text += f", {name} {value}"
        return text

    @property
    def gentle(self) -> bool:
        """Whether both streams can come to their end."""
        return self.end is End.FIN and self.gives_up is None


class Peer:
    """One end of a connection that is not the proxy's."""

    def __init__(self, world: World, name: str, stream: Stream, script: Script) -> None:
        self.world = world
        self.name = name
        self.stream = stream
        self.script = script
        self.received = bytearray()
        self.sent = 0
        self.pair: Peer | None = None
        """The peer that the proxy has connected it with."""
        self.paired = self.began = world.now
        """When that was, and when this one has come."""
        self.saw_end = False
        """Whether the other's stream has ended by a FIN."""
        self.error = 0
        self.finished = False
        self.moved = world.now
        """When something was received or sent last."""
        self._asked = False
        self._sends_at = self._reads_at = world.now
        self._stalled = False
        self._end_at: float | None = None
        stream.owner = self
        stream.take()

    def begin(self) -> None:
        """The connection is there."""
        self.began = self.world.now
        self.stream.waiters[self] = lambda _: self._soon()
        self._soon()
        if self.script.gives_up is not None:
            self.world.after(self.script.gives_up, self._give_up)

    def finish(self, how: str) -> None:
        """Let go of the connection."""
        if not self.finished:
            self.finished = True
            self._note(how)
            self.stream.waiters.pop(self, None)
            self.stream.give_back()

    @property
    def wants_to_read(self) -> bool:
        return not self.finished and not self.saw_end and self.world.now >= self._reads_at

    def _soon(self, delay: float | None = None) -> None:
        if not self._asked:
            self._asked = True
            if delay is None:
                self.world.soon(self._act)
            else:
                self.world.after(delay, self._act)

    def _act(self) -> None:
        self._asked = False
        if self.finished:
            return
        try:
            self._read()
            self._send()
            self._end()
        except BlockingIOError:
            pass
        except OSError as error:
            self.error = error.errno or 1
            self.finish(f"was reset, errno {self.error}")
            return
        if not self.finished:
            self._wait()

    def _read(self) -> None:
        script = self.script
        while not self.saw_end and self.world.now >= self._reads_at:
            try:
                data = self.stream.receive(self.world.random.randint(1, script.reads))
            except BlockingIOError:
                return
            if not data:
                self.saw_end = True
                self._note("sees the end")
                return
            self.moved = self.world.now
            self.received += data
            self._note_read(len(data))
            if script.rest:
                self._reads_at = self.world.now + self.world.random.random() * script.rest
            if script.stall and not self._stalled and len(self.received) >= script.stall[0]:
                self._stalled = True
                self._reads_at = self.world.now + script.stall[1]
            if len(self.received) > _LONGEST:
                raise Violation(f"{self.name} receives more and more")

    def _send(self) -> None:
        script = self.script
        if len(self.received) < script.waits and not self.saw_end:
            return
        while self.sent < len(script.data) and self.world.now >= self._sends_at:
            count = self.world.random.randint(1, script.piece)
            try:
                taken = self.stream.send(script.data[self.sent : self.sent + count], atomic=True)
            except BlockingIOError:
                return
            self.sent += taken
            self.moved = self.world.now
            if script.pause:
                self._sends_at = self.world.now + self.world.random.random() * script.pause

    def _end(self) -> None:
        script, stream = self.script, self.stream
        if self.sent < len(script.data):
            return
        if self._end_at is None:
            self._end_at = self.world.now + script.end_after
        if self.world.now < self._end_at:
            return
        if script.end is End.RESET:
            stream.hard = True
            self.finish("resets")
        elif script.end is End.CLOSE:
            self.finish("closes")
        elif not stream.shut:
            self._note("ends its stream")
            stream.end()
        if self.saw_end and stream.shut and not self.finished:
            self.finish("is done")

    def _give_up(self) -> None:
        if not self.finished:
            self.stream.hard = self.world.random.random() < 0.5
            self.finish("gives up by a reset" if self.stream.hard else "gives up")

    def _wait(self) -> None:
        """Act again when it is time to, if nothing happens before."""
        now = self.world.now
        times = []
        if not self.saw_end and self._reads_at > now:
            times.append(self._reads_at)
        if self.sent < len(self.script.data) and self._sends_at > now:
            times.append(self._sends_at)
        if self._end_at is not None and self._end_at > now:
            times.append(self._end_at)
        if times:
            self._soon(min(times) - now + 1e-6)

    def _note(self, what: str) -> None:
        if self.world.trace is not None:
            self.world.note(self.name, what)

    def _note_read(self, count: int) -> None:
        if self.world.trace is not None:
            self.world.note(self.name, f"reads {count}, {len(self.received)} in all")


def stream_of(number: int, count: int) -> bytes:
    """Bytes that are unlike those of any other number; the first is the number itself."""
    if not count:
        return b""
    begin = number * 257 % len(_PATTERN)
    times = (begin + count) // len(_PATTERN) + 1
    return bytes([number]) + (_PATTERN * times)[begin : begin + count - 1]
