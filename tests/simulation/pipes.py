"""Pipes, and splice(2) between them and TCP sockets."""

from __future__ import annotations

import errno
from typing import Final

from tests.simulation.files import Descriptors, File, fail
from tests.simulation.streams import Stream
from tests.simulation.world import Fault, Violation, World

PAGE: Final = 4096


class Pipe:
    """What both ends share."""

    def __init__(self, capacity: int) -> None:
        self.content = bytearray()
        self.capacity = capacity
        self.stretched = 0
        """Bytes that are lost to pages which are not full."""


class PipeEnd(File):
    def __init__(self, world: World, pipe: Pipe, name: str) -> None:
        super().__init__(world, name)
        self.pipe = pipe


class Pipes:
    """The system calls."""

    def __init__(self, world: World, descriptors: Descriptors) -> None:
        self._world = world
        self._descriptors = descriptors
        self.largest = 1 << 20
        """Bytes that a pipe may be given."""

    def pipe(self) -> tuple[int, int]:
        self._world.call()
        self._descriptors.room(2)
        pipe = Pipe(min(64 * 1024, self.largest))
        reader, writer = (PipeEnd(self._world, pipe, name) for name in ("pipe out", "pipe in"))
        return self._descriptors.install(reader), self._descriptors.install(writer)

    def resize(self, fd: int, size: int) -> None:
        self._world.call()
        if size > self.largest:
            raise fail(errno.EPERM)
        self._end(fd).pipe.capacity = size

    def size(self, fd: int) -> int:
        return self._end(fd).pipe.capacity

    def read(self, fd: int, count: int) -> bytes:
        """Raises OSError."""
        self._world.call()
        pipe = self._end(fd).pipe
        if not pipe.content:
            raise fail(errno.EAGAIN)
        data = bytes(pipe.content[: self._some(count)])
        del pipe.content[: len(data)]
        if not pipe.content:
            pipe.stretched = 0
        return data

    def splice(self, source: int, target: int, count: int, *, flags: int) -> int:
        """Raises OSError."""
        self._world.call()
        first, second = self._descriptors.find(source), self._descriptors.find(target)
        if self._world.chance(Fault.NO_SPLICE):
            raise fail(self._world.random.choice((errno.EINVAL, errno.ENOMEM)))
        if isinstance(first, Stream) and isinstance(second, PipeEnd):
            return self._fill(first, second.pipe, count)
        if isinstance(first, PipeEnd) and isinstance(second, Stream):
            return self._drain(first.pipe, second, count)
        raise fail(errno.EINVAL)

    def _fill(self, stream: Stream, pipe: Pipe, count: int) -> int:
        room = pipe.capacity - len(pipe.content) - pipe.stretched
        if room <= 0:
            raise fail(errno.EAGAIN)
        self._no_wait(stream)
        data = stream.receive(self._some(min(count, room)))
        pipe.content += data
        if data and self._world.random.random() < 0.2:
            pipe.stretched += min(PAGE, room - len(data))  # A packet that has a page for itself.
        if self._world.trace is not None:
            self._world.note("proxy", f"splice {stream.name} into pipe: {len(data)}")
        return len(data)

    def _drain(self, pipe: Pipe, stream: Stream, count: int) -> int:
        if not pipe.content:
            raise fail(errno.EAGAIN)
        self._no_wait(stream)
        sent = stream.send(bytes(pipe.content[: self._some(count)]))
        del pipe.content[:sent]
        if not pipe.content:
            pipe.stretched = 0
        if self._world.trace is not None:
            self._world.note("proxy", f"splice pipe into {stream.name}: {sent}")
        return sent

    def _some(self, count: int) -> int:
        if count > 1 and self._world.chance(Fault.SHORT_SPLICE):
            return self._world.random.randrange(1, count)
        return count

    def _no_wait(self, stream: Stream) -> None:
        if stream.blocking:
            raise Violation(f"splice waits for {stream.name}")

    def _end(self, fd: int) -> PipeEnd:
        file = self._descriptors.find(fd)
        assert isinstance(file, PipeEnd)
        return file
