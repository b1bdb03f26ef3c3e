"""A kernel in plain Python: descriptors, listening sockets, socket pairs that carry descriptors.

It keeps to what the control process relies on: the lowest free number is given out, ports belong to
those who have bound them until the last copy of the descriptor is closed, SO_REUSEPORT groups,
SO_REUSEADDR, addresses that are not there, buffers that are full, MSG_CTRUNC. Each call may fail,
if a fault is injected.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from tests.faults.clock import Clock
from tests.faults.injection import FaultInjector
from uproxy.core.route import Backend

READ, WRITE = 1, 2
ROOM: Final = 16 * 1024
"""Bytes in a socket pair's buffer: small, so that it is full now and then."""
_FOREIGN: Final = 1 << 20
"""Between the numbers of one process and those of the next: one event loop watches them all."""
_FIRST: Final = 10_000
"""Far from any descriptor that the event loop really has."""
_FREEBIND: Final = 78


@dataclass(eq=False, slots=True)
class File:
    """An open file description, which several descriptors may stand for."""

    family: int
    kind: int
    copies: int = 0
    options: dict[tuple[int, int], object] = field(default_factory=dict)
    place: tuple[str, int] | None = None
    listening: bool = False
    peer: File | None = None
    """The other end of a pair; itself gone when it has no copies."""
    arrived: deque[tuple[bytes, list[File]]] = field(default_factory=deque)

    @property
    def waiting(self) -> int:
        return sum(len(data) for data, _ in self.arrived)

    @property
    def shared(self) -> bool:
        return bool(self.options.get((socket.SOL_SOCKET, socket.SO_REUSEPORT)))

    @property
    def reusable(self) -> bool:
        return bool(self.options.get((socket.SOL_SOCKET, socket.SO_REUSEADDR)))


class Process:
    """Who has descriptors."""

    def __init__(self, kernel: Kernel, name: str, first: int, limit: int) -> None:
        self.kernel = kernel
        self.name = name
        self.limit = limit
        self.files: dict[int, File] = {}
        self.first = first

    def install(self, file: File) -> int:
        """A new descriptor, of the lowest free number. Raises OSError."""
        number = self.first
        while number in self.files:
            number += 1
        if number - self.first >= self.limit:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.files[number] = file
        file.copies += 1
        return number

    def close(self, number: int) -> None:
        self.kernel.drop(self.files.pop(number))

    def end(self) -> None:
        """All it has is closed."""
        for number in list(self.files):
            self.close(number)


current: ContextVar[Process] = ContextVar("process")
"""Whose calls these are."""


class Kernel:
    """All descriptors of all processes."""

    def __init__(self, clock: Clock, faults: FaultInjector, tell: Callable[[str], None]) -> None:
        self.faults = faults
        self.tell = tell
        self.clock = clock
        self.addresses = {"127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"}
        """Of interfaces."""
        self.claims: set[str] = set()
        """Addresses that are local by a route of ours."""
        self.bridge_mac = "02:00:00:00:00:00"
        """The address of the bridge that all pods of this node are behind."""
        self.diverted: Mapping[Backend, str] = {}
        """Backends whose replies come up from the bridge, each with the bridge's address."""
        self.taken: set[tuple[int, int]] = set()
        """Kinds and ports that another program has, on all addresses."""
        self._bound: dict[tuple[int, int], list[File]] = {}
        """By kind and port."""
        self._processes: list[Process] = []
        self.control = self.process("control", 1024)
        current.set(self.control)

    def process(self, name: str, limit: int) -> Process:
        """A new process, which has nothing open but what every process has."""
        first = len(self._processes) * _FOREIGN + _FIRST
        made = Process(self, name, first, limit)
        self._processes.append(made)
        return made

    @contextmanager
    def running(self, process: Process) -> Iterator[None]:
        """Calls in here are that process's."""
        token = current.set(process)
        try:
            yield
        finally:
            current.reset(token)

    def call(self, kind: str, subject: object = "") -> None:
        """A call of the control process begins. Raises OSError if it is to fail."""
        if current.get() is not self.control:
            return
        self.clock.now += 1e-5
        error = self.faults.error(kind)
        if error is not None:
            name = errno.errorcode.get(error.errno or 0, "?")
            self.tell(f"{kind} {subject} fails: {name}")
            raise error

    def cuts(self, process: Process) -> bool:
        """Whether a descriptor that is on its way to a process does not arrive."""
        return process is not self.control and self.faults.happens("cut")

    def portion(self, size: int) -> int:
        """How much of so many bytes is taken at once: at least one."""
        return self.faults.portion(size) if current.get() is self.control else size

    def readiness(self, number: int) -> int:
        """Of a descriptor of any process."""
        file = self._processes[number // _FOREIGN].files.get(number)
        if file is None:
            return 0
        if file.peer is None:
            return READ if file.arrived else 0
        gone = not file.peer.copies
        mask = READ if file.arrived or gone else 0
        return mask | (WRITE if gone or file.peer.waiting < ROOM else 0)

    def bind(self, file: File, place: tuple[str, int]) -> None:
        """Raises OSError."""
        address, port = place
        here = address in self.addresses or address in ("0.0.0.0", "::")
        free = (socket.IPPROTO_IPV6, _FREEBIND) in file.options
        if not (here or (address in self.claims and (":" not in address or free))):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        others = self._bound.setdefault((file.kind, port), [])
        if (file.kind, port) in self.taken or any(_conflict(file, address, it) for it in others):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        file.place = place
        others.append(file)

    def drop(self, file: File) -> None:
        """One copy less."""
        file.copies -= 1
        if file.copies:
            return
        file.listening = False
        if file.place is not None and file.family in (socket.AF_INET, socket.AF_INET6):
            self._bound[file.kind, file.place[1]].remove(file)
        for _, attached in file.arrived:
            for each in attached:
                self.drop(each)
        file.arrived.clear()

    def listeners(self, kind: int, port: int) -> list[File]:
        """All sockets that are bound to a port."""
        return list(self._bound.get((kind, port), ()))

    @property
    def bound(self) -> list[File]:
        """All bound sockets."""
        return [file for files in self._bound.values() for file in files]


def _conflict(file: File, address: str, other: File) -> bool:
    assert other.place is not None
    wildcards = ("0.0.0.0", "::")
    if file.family != other.family:
        return False
    if address != other.place[0] and address not in wildcards and other.place[0] not in wildcards:
        return False
    if file.shared and other.shared:
        return False
    tcp = file.kind == socket.SOCK_STREAM
    return not (tcp and file.reusable and other.reusable and not other.listening)
