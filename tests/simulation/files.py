"""Open files of the simulated process, and the numbers that they are known by."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from typing import Final

from tests.simulation.world import Fault, Violation, World

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ERR: Final = select.EPOLLERR
HUP: Final = select.EPOLLHUP
RDHUP: Final = select.EPOLLRDHUP
PRI: Final = select.EPOLLPRI
ANY: Final = 0
"""Wakes whoever waits, whatever for."""


def fail(code: int) -> OSError:
    """The exception that Python raises for an errno."""
    return OSError(code, os.strerror(code))


class File:
    """An open file description. It is released with the last reference: descriptors, and what an
    io_uring is doing with it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.references = 0
        self.released = False
        self.waiters: dict[object, Callable[[int], None]] = {}
        """Called, with the events that have occurred, by whom they wait for."""
        self.watched_by: list[Watching] = []

    def poll(self) -> int:
        """The events that hold now."""
        return 0

    def wake(self, events: int) -> None:
        for waiter in list(self.waiters.values()):
            waiter(events)

    def take(self) -> None:
        self.references += 1

    def give_back(self) -> None:
        self.references -= 1
        if self.references == 0:
            self.released = True
            for watching in list(self.watched_by):
                watching.forget(self)
            self.release()
        elif self.references < 0:
            raise Violation(f"{self.name} was given back once too often")

    def release(self) -> None:
        """Its last descriptor was closed."""


class Watching:
    """What has to forget a file when it is released."""

    def forget(self, file: File) -> None:
        raise NotImplementedError


class Descriptors:
    """The table of a process. A new one gets the lowest number that is free."""

    def __init__(self, world: World, lowest: int = 3) -> None:
        self.files: dict[int, File] = {}
        self.limit = 1 << 16
        self.refused = 0
        """How often it was reached."""
        self._world = world
        self._lowest = lowest

    def room(self, count: int = 1) -> None:
        """Raises OSError if there is none."""
        if len(self.files) + count > self.limit:
            self.refused += 1
            raise fail(errno.EMFILE)
        if self._world.chance(Fault.NO_DESCRIPTOR):
            raise fail(self._world.random.choice((errno.EMFILE, errno.ENFILE)))

    def install(self, file: File) -> int:
        fd = self._lowest
        while fd in self.files:
            fd += 1
        self.files[fd] = file
        file.take()
        return fd

    def find(self, fd: int) -> File:
        """Raises OSError."""
        file = self.files.get(fd)
        if file is None:
            raise fail(errno.EBADF)
        return file

    def close(self, fd: int) -> None:
        """Raises OSError."""
        file = self.find(fd)
        del self.files[fd]
        if self._world.trace is not None:
            self._world.note("proxy", f"close({fd}) {file.name}")
        file.give_back()
