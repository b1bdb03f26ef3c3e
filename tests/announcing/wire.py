"""A simulated wire: segments, interfaces with addresses that expire, and frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.announcing.timeline import Timeline

FLIGHT = 0.001
"""Seconds that a frame takes."""
PROBE = 0.3
"""Seconds after which a probe is taken for unanswered; it asks twice."""


@dataclass
class Nic:
    """The interface of one node, and what its kernel has on it."""

    node: str
    segment: int = 0
    powered: bool = True
    carrier: bool = True
    addresses: dict[str, float] = field(default_factory=dict)
    """When each of them expires."""
    hear: Callable[[str, str], None] | None = None

    def has(self, address: str, now: float) -> bool:
        return self.powered and now < self.addresses.get(address, -1.0)

    def answers(self, address: str, now: float) -> bool:
        return self.carrier and self.has(address, now)

    def left(self, now: float) -> dict[str, str]:
        return {address: "eth0" for address in self.addresses if self.has(address, now)}


@dataclass
class Wire:
    time: Timeline
    random: Random
    nics: dict[str, Nic] = field(default_factory=dict)
    loss: float = 0.0
    """The share of frames that are lost."""
    frames: int = 0

    def announce(self, node: str, address: str) -> None:
        self.frames += 1
        self.time.after(FLIGHT, lambda: self._arrive(node, address))

    def probe(self, node: str, address: str, done: Callable[[str | None], None]) -> None:
        for wait in (FLIGHT, 0.2 + FLIGHT):
            self.time.after(wait, lambda: self._ask(node, address, done))
        self.time.after(PROBE, lambda: done(None))

    def answering(self, address: str) -> list[str]:
        now = self.time.now
        return [nic.node for nic in self.nics.values() if nic.answers(address, now)]

    def _arrive(self, node: str, address: str) -> None:
        for nic in self._reachable(node):
            if nic.hear is not None and self.random.random() >= self.loss:
                nic.hear(address, node)

    def _ask(self, node: str, address: str, done: Callable[[str | None], None]) -> None:
        for nic in self._reachable(node):
            if nic.answers(address, self.time.now) and self.random.random() >= self.loss:
                done(nic.node)

    def _reachable(self, node: str) -> list[Nic]:
        own = self.nics[node]
        if not (own.powered and own.carrier):
            return []
        return [
            nic
            for nic in self.nics.values()
            if nic is not own and nic.segment == own.segment and nic.powered and nic.carrier
        ]
