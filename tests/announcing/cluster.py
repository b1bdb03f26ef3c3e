"""The simulated cluster, and who answers for which address in it at any time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from random import Random

from tests.announcing.api import Api
from tests.announcing.node import SimulatedNode
from tests.announcing.timeline import Timeline
from tests.announcing.wire import Wire
from uproxy.core.announcing.view import Allowance, Announceable, Candidates
from uproxy.core.cluster.objects import ObjectName

TICK = 0.02
"""Seconds between two looks at who answers."""


class Cluster:
    """Some nodes, and addresses that are to be announced."""

    def __init__(
        self,
        seed: int,
        nodes: int,
        addresses: int,
        *,
        subnet: str = "192.0.2.0/24",
        quick: bool = False,
    ) -> None:
        """With `quick`, nobody looks at who answers, which takes long with many addresses."""
        self.time, self.random = Timeline(), Random(seed)
        self.api, self.wire = Api(self.time, self.random), Wire(self.time, self.random)
        self.lines: list[str] = []
        self.nodes = {
            name: SimulatedNode(
                name,
                self.time,
                self.api,
                self.wire,
                offset=self.random.uniform(0, 1e6),
                rate=1 + self.random.uniform(-2e-4, 2e-4),
                trace=self.say,
                subnet=subnet,
            )
            for name in (f"n{number}" for number in range(nodes))
        }
        self.addresses = [f"192.0.2.{10 + number}" for number in range(addresses)]
        self.excluded: set[str] = set()
        self.want(self.addresses)
        self.answering: dict[str, tuple[str, ...]] = {}
        self.moves: list[tuple[float, str, tuple[str, ...], tuple[str, ...]]] = []
        """When other nodes began to answer for an address, with those before and after."""
        self.together: dict[str, float] = {}
        """Since when several running nodes of a segment answer for an address."""
        self.longest_together = 0.0
        self.gaps: dict[str, float] = {}
        """Since when no node answers."""
        self.watchers: list[Callable[[], None]] = []
        if not quick:
            self._tick()

    def say(self, line: str) -> None:
        self.lines.append(f"{self.time.now:8.3f} {line}")

    def want(self, addresses: Collection[str]) -> None:
        """Set what is to be announced; each node hears of it a little later."""
        allowed = {name: Allowance() for name in self.nodes if name not in self.excluded}
        candidates = Candidates(pool="default", nodes=allowed)
        wanted: Mapping[str, Announceable] = {
            each: Announceable(
                address=each, services=(ObjectName("default", each),), candidates=candidates
            )
            for each in addresses
        }
        for node in self.nodes.values():
            wait = 0.0 if node.wanted is None else self.random.uniform(0.0, 0.2)
            self.time.after(wait, lambda node=node: self._tell(node, wanted))  # type: ignore[misc]

    def run(self, seconds: float) -> None:
        self.time.run(self.time.now + seconds)

    def settle(self) -> None:
        """Start all nodes, and wait until they have divided the addresses among themselves."""
        for node in self.nodes.values():
            self.time.after(self.random.uniform(0.0, 1.0), node.start)
        self.run(10.0)

    def holder(self, address: str) -> SimulatedNode:
        """The only node that answers for an address."""
        (name,) = self.wire.answering(address)
        return self.nodes[name]

    def unrest(self) -> str:
        """An address that not exactly one node answers for, in words; "" if there is none."""
        able = [n for n in self.nodes.values() if self._able(n)]
        for address in self.addresses if able else ():
            names = self.wire.answering(address)
            if len(names) != 1:
                return f"{address} is answered for by {', '.join(names) or 'no node'}"
        return ""

    def _able(self, node: SimulatedNode) -> bool:
        return node.running and node.nic.carrier and node.name not in self.excluded

    def _tell(self, node: SimulatedNode, wanted: Mapping[str, Announceable]) -> None:
        node.wanted = wanted
        node.wake()

    def _tick(self) -> None:
        for address in self.addresses:
            self._look(address)
        for each in self.watchers:
            each()
        self.time.after(TICK, self._tick)

    def _look(self, address: str) -> None:
        now = self.time.now
        names = tuple(self.wire.answering(address))
        before = self.answering.get(address, ())
        if names != before:
            self.say(f"{address}: {', '.join(before) or '-'} -> {', '.join(names) or '-'}")
            self.moves.append((now, address, before, names))
            self.answering[address] = names
        if names:
            self.gaps.pop(address, None)
        else:
            self.gaps.setdefault(address, now)
        running = [self.nodes[name] for name in names if self.nodes[name].running]
        segments = [node.nic.segment for node in running]
        if len(segments) > len(set(segments)):
            since = self.together.setdefault(address, now)
            self.longest_together = max(self.longest_together, now - since)
        else:
            self.together.pop(address, None)
