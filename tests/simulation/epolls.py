"""epoll, as Linux has it (fs/eventpoll.c)."""

from __future__ import annotations

import errno
import select
from collections.abc import Callable

from tests.simulation.files import ERR, HUP, IN, Descriptors, File, Watching, fail
from tests.simulation.world import Fault, World

EDGE = select.EPOLLET


class Item:
    """A file that is watched, under the number that it had then."""

    __slots__ = ("events", "fd", "file")

    def __init__(self, fd: int, file: File, events: int) -> None:
        self.fd = fd
        self.file = file
        self.events = events


class EpollFile(File, Watching):
    """An item is in `ready` from an event on until it was reported; those without EPOLLET for as
    long as the event lasts."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "epoll")
        self.items: dict[tuple[int, int], Item] = {}
        """By descriptor and id() of the file, which lives as long as its item."""
        self.ready: dict[Item, None] = {}

    def poll(self) -> int:
        for item in list(self.ready):
            if self.mask(item):
                return IN
            del self.ready[item]
        return 0

    def mask(self, item: Item) -> int:
        return item.file.poll() & (item.events | ERR | HUP) & 0xFFFF

    def add(self, fd: int, file: File, events: int) -> None:
        key = (fd, id(file))
        if key in self.items:
            raise fail(errno.EEXIST)
        if self.world.chance(Fault.NO_WATCH):
            raise fail(self.world.random.choice((errno.ENOMEM, errno.ENOSPC)))
        item = self.items[key] = Item(fd, file, events)
        file.watched_by.append(self)
        file.waiters[item] = lambda happened: self._happened(item, happened)
        if self.mask(item):
            self._report(item)

    def change(self, fd: int, file: File, events: int) -> None:
        item = self.items.get((fd, id(file)))
        if item is None:
            raise fail(errno.ENOENT)
        item.events = events
        if self.mask(item):
            self._report(item)

    def drop(self, fd: int, file: File) -> None:
        item = self.items.pop((fd, id(file)), None)
        if item is None:
            raise fail(errno.ENOENT)
        self.ready.pop(item, None)
        del file.waiters[item]
        file.watched_by.remove(self)

    def forget(self, file: File) -> None:
        for fd, number in list(self.items):
            if number == id(file):
                item = self.items.pop((fd, number))
                self.ready.pop(item, None)
                file.waiters.pop(item, None)

    def collect(self, most: int) -> list[tuple[int, int]]:
        """What epoll_wait reports."""
        if self.items and self.world.chance(Fault.SPURIOUS_EVENT):
            self.ready.setdefault(self.world.random.choice(list(self.items.values())))
        reported: list[tuple[int, int]] = []
        waiting = list(self.ready)
        if len(waiting) > 1 and self.world.chance(Fault.SHUFFLED_EVENTS):
            self.world.random.shuffle(waiting)
        for item in waiting:
            if len(reported) == most:
                break
            del self.ready[item]
            events = self.mask(item)
            if events:
                reported.append((item.fd, events))
                if not item.events & EDGE:
                    self.ready[item] = None
        return reported

    def release(self) -> None:
        self.waiters.clear()
        for item in list(self.items.values()):
            item.file.waiters.pop(item, None)
            if self in item.file.watched_by:
                item.file.watched_by.remove(self)
        self.items.clear()
        self.ready.clear()

    def _happened(self, item: Item, events: int) -> None:
        if not events or events & item.events:
            self._report(item)

    def _report(self, item: Item) -> None:
        self.ready.setdefault(item)
        self.wake(IN)


class Epoll:
    """What select.epoll is to Python."""

    def __init__(self, world: World, descriptors: Descriptors, *, fails: bool) -> None:
        """`fails`: whether it may."""
        self._fails = fails
        self._world = world
        self._descriptors = descriptors
        self._file = EpollFile(world)
        self._fd = descriptors.install(self._file)
        self.closed = False
        self.watched: Callable[[File], None] = lambda _: None

    def fileno(self) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed epoll object")
        return self._fd

    def register(self, fd: int, events: int) -> None:
        self._world.call()
        self._file.add(fd, self._descriptors.find(fd), events)
        self.watched(self._descriptors.find(fd))

    def modify(self, fd: int, events: int) -> None:
        self._world.call()
        self._file.change(fd, self._descriptors.find(fd), events)

    def unregister(self, fd: int) -> None:
        self._world.call()
        self._file.drop(fd, self._descriptors.find(fd))

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """Raises ValueError when closed."""
        self.fileno()
        self._world.call()
        if self._fails and self._world.chance(Fault.EPOLL_FAILS):
            raise fail(errno.ENOMEM)
        most = maxevents if maxevents > 0 else 1024
        until = None if timeout is None or timeout < 0 else self._world.now + timeout
        while True:
            if timeout != 0:
                self._world.wait(lambda: bool(self._file.ready), until)
            events = self._file.collect(most)
            if self._world.trace is not None and events:
                self._world.note("proxy", f"epoll {self._fd}: " + _listed(events))
            if events or (until is not None and self._world.now >= until):
                return events

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._descriptors.close(self._fd)


def _listed(events: list[tuple[int, int]]) -> str:
    return ", ".join(f"{fd} {event_names(mask)}" for fd, mask in events)


def event_names(mask: int) -> str:
    names = ("IN", "PRI", "OUT", "ERR", "HUP", "RDHUP")
    return "+".join(name for name in names if mask & getattr(select, f"EPOLL{name}")) or "none"
