"""The simulated kernel as the data plane sees it, and event loops that wait for it."""

from __future__ import annotations

import asyncio
import select
import selectors
from _socket import socket as BareSocket
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from tests.simulation.datagrams import DatagramSocket
from tests.simulation.epolls import Epoll
from tests.simulation.files import Descriptors, File
from tests.simulation.network import Network
from tests.simulation.pipes import Pipes
from tests.simulation.rings import SimulatedQueues
from tests.simulation.sockets import Sockets
from tests.simulation.world import Fault, World
from uproxy.dataplane.kernel import Kernel
from uproxy.uring.loop import RingLoop, RingSelector

UNIX_TIME: Final = 1_700_000_000.0
"""What the two clocks of the simulated machine differ by."""


class Mailbox(File):
    """What the control process uses to say something: readable while there is a message."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "channel")
        self.messages: list[Any] = []

    def poll(self) -> int:
        return select.EPOLLIN if self.messages else 0

    def post(self, message: Any) -> None:
        self.messages.append(message)
        self.wake(select.EPOLLIN)

    def read(self) -> list[Any]:
        self.world.call()
        messages, self.messages = self.messages, []
        return messages


class Memory(Protocol):
    """How much of it there is, and what the kernel knows to do with it."""

    @property
    def ring_entries(self) -> int: ...

    @property
    def ring_completions(self) -> int: ...

    @property
    def ring_buffers(self) -> int: ...

    @property
    def datagram_buffers(self) -> int: ...

    @property
    def limits(self) -> bool:
        """Whether receives of a ring may have a limit (Linux 6.17)."""


class Machine:
    """A kernel with one process, which runs the data plane."""

    def __init__(self, world: World, memory: Memory) -> None:
        self.world = world
        self.descriptors = Descriptors(world)
        self.network = Network(world)
        self.pipes = Pipes(world, self.descriptors)
        self.sockets = Sockets(world, self.descriptors, self.network)
        self.queues: SimulatedQueues | None = None
        self.watched: Callable[[File], None] = lambda _: None
        """Told whenever the process has a file watched by its epoll."""
        self._memory = memory
        self.kernel = Kernel(
            new_socket=cast("type[BareSocket]", self.sockets.new),
            adopt=cast("Any", self.sockets.adopt),
            epoll=cast("type[select.epoll]", self._new_epoll),
            queues=self._new_queues,
            ring_buffers=memory.ring_buffers,
            datagram_buffers=memory.datagram_buffers,
            disconnect=self._disconnect,
            monotonic=self.monotonic,
            time=lambda: world.now + UNIX_TIME,
            pipe=self.pipes.pipe,
            resize_pipe=self.pipes.resize,
            size_of_pipe=self.pipes.size,
            splice=self.pipes.splice,
            read=self.pipes.read,
            set_blocking=self._set_blocking,
            unsent=self._unsent,
            close=self._close,
        )

    def monotonic(self) -> float:
        self.world.call()
        return self.world.now

    def new_epoll(self) -> Epoll:
        """For a loop, which could not go on if it failed."""
        return Epoll(self.world, self.descriptors, fails=False)

    def new_loop(self, *, ring: bool) -> asyncio.SelectorEventLoop:
        return _RingLoop(self) if ring else _EpollLoop(self)

    def _new_epoll(self) -> Epoll:
        made = Epoll(self.world, self.descriptors, fails=True)
        made.watched = self.watched
        return made

    def _new_queues(self) -> SimulatedQueues:
        memory = self._memory
        self.queues = made = SimulatedQueues(
            self.world,
            self.descriptors,
            entries=memory.ring_entries,
            completions=memory.ring_completions,
            limits=memory.limits,
        )
        return made

    def _set_blocking(self, fd: int, flag: bool) -> None:
        self.descriptors.find(fd).blocking = flag  # type: ignore[attr-defined]

    def _unsent(self, fd: int) -> int:
        return len(self.descriptors.find(fd).outbox)  # type: ignore[attr-defined]

    def _disconnect(self, fd: int) -> bool:
        self.world.call()
        file = self.descriptors.find(fd)
        assert isinstance(file, DatagramSocket)
        if self.world.chance(Fault.NO_SOCKET_MEMORY):
            return False
        file.disconnect()
        return True

    def _close(self, fd: int) -> None:
        self.world.call()
        self.descriptors.close(fd)


class _WithoutSelfPipe:
    """No other thread and no signal wakes a simulated loop."""

    def _make_self_pipe(self) -> None:
        pass

    def _close_self_pipe(self) -> None:
        pass


class _RingSelector(RingSelector):
    def __init__(self, machine: Machine) -> None:
        self._selector_cls = machine.new_epoll
        kernel = machine.kernel
        super().__init__(kernel.queues, kernel.monotonic, buffers=kernel.ring_buffers)


class _RingLoop(_WithoutSelfPipe, RingLoop):
    def __init__(self, machine: Machine) -> None:
        self._world = machine.world
        super().__init__(_RingSelector(machine))

    def time(self) -> float:
        return self._world.now


class _EpollSelector(selectors.EpollSelector):
    def __init__(self, machine: Machine) -> None:
        self._selector_cls = machine.new_epoll
        super().__init__()


class _EpollLoop(_WithoutSelfPipe, asyncio.SelectorEventLoop):
    def __init__(self, machine: Machine) -> None:
        self._world = machine.world
        super().__init__(_EpollSelector(machine))

    def time(self) -> float:
        return self._world.now
