"""Flows that wait for a descriptor, without sockets: who is tried, and when."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from uproxy.core.flows.counters import DropReason
from uproxy.dataplane.tcp.shortage import PATIENCE, PAUSE, Shortage


class Moments:
    """A reactor whose time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        self._due.append((self.now + delay, callback))
        return SimpleNamespace(cancel=lambda: None)

    def guard(self, callback: Callable[[], None]) -> None:
        callback()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due, self._due = self._due, []
        for at, callback in due:
            if at <= self.now:
                callback()
            else:
                self._due.append((at, callback))


class Waiting:
    """A flow that takes a descriptor when there is one."""

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._name = name

    def retry(self) -> None:
        if self._node.free:
            self._node.free -= 1
            self._node.served.append(self._name)
        else:
            self._node.shortage.wait(self)

    def drop(self, reason: DropReason) -> None:
        assert reason is DropReason.DESCRIPTORS
        self._node.shortage.forget(self)
        self._node.dropped.append(self._name)


class Node:
    """A worker with so many free descriptors."""

    def __init__(self) -> None:
        self.free = 0
        self.served: list[str] = []
        self.dropped: list[str] = []
        self.time = Moments()
        queue = SimpleNamespace(descriptor_refused=lambda: None, reclaim_from_udp=lambda: None)
        context = SimpleNamespace(reactor=self.time, queue=queue)
        self.shortage = Shortage(cast("Any", context), release=lambda: None)

    def flow(self, name: str) -> Waiting:
        flow = Waiting(self, name)
        self.shortage.wait(flow)
        return flow


def test_flows_are_served_in_the_order_of_their_waiting() -> None:
    """However often the first of them has been refused again meanwhile."""
    node = Node()
    for name in "abc":
        node.flow(name)
    for _ in range(2):
        node.time.pass_time(PAUSE)
    node.free = 2
    node.time.pass_time(PAUSE)
    assert node.served == ["a", "b"]
    node.free = 1
    node.time.pass_time(PAUSE)
    assert node.served == ["a", "b", "c"]


def test_each_flow_waits_no_longer_than_its_patience() -> None:
    node = Node()
    node.flow("early")
    node.time.pass_time(PATIENCE / 2)
    node.flow("late")
    while node.time.now < PATIENCE + PAUSE:
        node.time.pass_time(PAUSE)
    assert node.dropped == ["early"]
    while node.time.now < 1.5 * PATIENCE + PAUSE:
        node.time.pass_time(PAUSE)
    assert node.dropped == ["early", "late"]
    assert node.served == []
