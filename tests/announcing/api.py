"""A simulated API server: Leases with versions, and watches that deliver changes in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from tests.announcing.timeline import Timeline
from uproxy.core.announcing.lease_objects import decode, encode
from uproxy.core.announcing.leases import AnnouncerLease

TIMEOUT = 1.0
"""Seconds after which a client gives up a write, which may succeed later all the same."""

BEHIND = 12
"""Changes by which the cache of the API server may be behind when it answers a list."""


@dataclass
class Change:
    node: str
    lease: AnnouncerLease | None


@dataclass
class Path:
    """The way between one node and the API server."""

    up: bool = True
    latency: tuple[float, float] = (0.002, 0.03)
    delay: tuple[float, float] = (0.002, 0.05)
    """Of what a watch delivers."""


@dataclass
class Watch:
    """One node's watch."""

    listed: Callable[[list[AnnouncerLease]], None]
    deliver: Callable[[Change], None]
    position: int = 0
    begun: bool = False
    """Whether the list that it begins with has come."""
    connected: bool = False
    ended: bool = False
    last_at: float = 0.0


@dataclass
class Api:
    time: Timeline
    random: Random
    leases: dict[str, AnnouncerLease] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    paths: dict[str, Path] = field(default_factory=dict)
    watches: dict[str, Watch] = field(default_factory=dict)
    writes: int = 0

    def path(self, node: str) -> Path:
        return self.paths.setdefault(node, Path())

    def write(self, node: str, lease: AnnouncerLease, done: Callable[[str | None], None]) -> None:
        """Call back with the new version, "" after a conflict, or None if it has timed out."""
        answered = [False]

        def answer(version: str | None) -> None:
            if not answered[0]:
                answered[0] = True
                done(version)

        path = self.path(node)
        self.time.after(TIMEOUT, lambda: answer(None))
        if path.up:
            low, high = path.latency
            whole = self.random.uniform(low, high)
            self.time.after(
                whole * self.random.random(), lambda: self._arrive(node, lease, whole, answer)
            )

    def delete(self, node: str) -> None:
        if self.leases.pop(node, None) is not None:
            self._commit(Change(node, None))

    def overwrite(self, node: str, **fields: object) -> None:
        """Have another program change the Lease of a node."""
        lease = self.leases.get(node)
        if lease is not None:
            version = str(len(self.history) + 1)
            changed = replace(lease, version=version, **fields)  # type: ignore[arg-type]
            self.leases[node] = changed
            self._commit(Change(node, changed))

    def watch(self, node: str, watch: Watch) -> None:
        """List, and deliver every change after that."""
        self.unwatch(node)
        self.watches[node] = watch
        self.time.after(
            self.random.uniform(*self.path(node).latency), lambda: self._list(node, watch)
        )

    def unwatch(self, node: str) -> None:
        if node in self.watches:
            self.watches.pop(node).ended = True

    def cut(self, node: str) -> None:
        self.path(node).up = False
        if node in self.watches:
            self.watches[node].connected = False

    def heal(self, node: str, *, relist: bool) -> None:
        path = self.path(node)
        if path.up:
            return
        path.up = True
        watch = self.watches.get(node)
        if watch is None:
            return
        wait = self.random.uniform(0.0, 1.0)
        self.time.after(wait, lambda: self._reconnect(node, watch, relist))

    def relist(self, node: str) -> None:
        """Have a node list everything again, as after "resource version too old"."""
        watch = self.watches.get(node)
        if watch is not None and self.path(node).up:
            watch.connected = False
            self.time.after(self.random.uniform(0.0, 0.3), lambda: self._list(node, watch))

    def _reconnect(self, node: str, watch: Watch, relist: bool) -> None:
        if relist or not watch.begun:
            self._list(node, watch)
        elif self.path(node).up and not watch.ended:
            watch.connected = True
            self._deliver_soon(node, watch)

    def _list(self, node: str, watch: Watch) -> None:
        if watch.ended or not self.path(node).up:
            return
        behind = self.random.randint(0, BEHIND) if self.random.random() < 0.3 else 0
        watch.position = max(0, len(self.history) - behind)
        watch.listed(self._leases_at(watch.position))
        watch.begun = watch.connected = True
        self._deliver_soon(node, watch)

    def _leases_at(self, position: int) -> list[AnnouncerLease]:
        """What there was after so many changes."""
        found: dict[str, AnnouncerLease] = {}
        for each in self.history[:position]:
            if each.lease is None:
                found.pop(each.node, None)
            else:
                found[each.node] = each.lease
        return list(found.values())

    def _arrive(
        self,
        node: str,
        lease: AnnouncerLease,
        whole: float,
        answer: Callable[[str | None], None],
    ) -> None:
        if not self.path(node).up:
            return
        current = self.leases.get(node)
        if (current.version if current is not None else "") != lease.version:
            self.time.after(whole / 2, lambda: answer(""))
            return
        self.writes += 1
        version = str(len(self.history) + 1)
        obj = encode(replace(lease, version=version), namespace="kube-system", now="")
        written = decode(obj)
        assert isinstance(written, AnnouncerLease), written
        self.leases[node] = written
        self._commit(Change(node, written))
        self.time.after(whole / 2, lambda: self._answer(node, version, answer))

    def _answer(self, node: str, version: str, answer: Callable[[str | None], None]) -> None:
        if self.path(node).up:
            answer(version)

    def _commit(self, change: Change) -> None:
        self.history.append(change)
        for node, watch in self.watches.items():
            if watch.connected:
                self._deliver_soon(node, watch)

    def _deliver_soon(self, node: str, watch: Watch) -> None:
        """Each change after the one before, whatever it takes."""
        until = len(self.history)
        at = max(watch.last_at, self.time.now + self.random.uniform(*self.path(node).delay))
        watch.last_at = at
        self.time.at(at, lambda: self._deliver(watch, until))

    def _deliver(self, watch: Watch, until: int) -> None:
        while watch.connected and not watch.ended and watch.position < until:
            change = self.history[watch.position]
            watch.position += 1
            watch.deliver(change)
