"""A cluster in which anything may fail at any time, drawn from a seed, and what has to hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.announcing.cluster import TICK, Cluster
from tests.announcing.node import SimulatedNode

TROUBLE: Final = 40.0
"""Seconds during which things fail."""
CALM: Final = 25.0
"""Seconds after the last failure within which all is well again."""
STILL: Final = 8.0
"""Seconds after that during which nothing moves."""
TOGETHER: Final = 1.1 + 0.15
"""Seconds for which two running nodes of a segment may answer for one address: an interval between
announcements, and what it takes to hear and to react."""
LOSSY: Final = 7.0
"""The same where a tenth of all frames is lost: some intervals may bring nothing."""
FORGED: Final = TOGETHER + 2.5
"""The same where another program writes the Lease of a node that is cut off from the API server: as
long as that is not in doubt, it thinks that it has what the Lease says it has not."""
GAP: Final = 15.0
"""Seconds for which no node answers at most, while an untroubled node could."""


@dataclass(frozen=True)
class Outcome:
    """How one seed has ended."""

    violations: Sequence[str]
    trace: Sequence[str]
    together: float
    gap: float


class Chaos:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"chaos {seed}")
        nodes = self.random.choice((2, 2, 3, 3, 4, 5, 8, 12))
        self.cluster = Cluster(seed, nodes, self.random.randint(1, 6))
        if self.random.random() < 0.2:
            self.cluster.wire.loss = 0.1
        self.deaf = self.random.random() < 0.1
        """Whether some nodes do not hear others announce (no CAP_NET_RAW)."""
        for node in self.cluster.nodes.values():
            node.hears = not (self.deaf and self.random.random() < 0.6)
            node.refresh()
        self.forged = False
        """Whether another program has written the Lease of a node."""
        self.violations: list[str] = []
        self.steady_since = dict.fromkeys(self.cluster.nodes, 0.0)
        """Since when nothing has happened to a node."""
        self.longest_gap = 0.0
        self.troubled: dict[str, int] = dict.fromkeys(self.cluster.nodes, 0)
        """How many failures each node has at the moment."""
        self.cluster.watchers.append(self._check_gaps)

    def run(self) -> Outcome:
        cluster = self.cluster
        cluster.settle()
        for _ in range(self.random.randint(1, 12)):
            self._plan(cluster.time.now + self.random.uniform(0.0, TROUBLE))
        cluster.run(TROUBLE)
        self._end()
        cluster.run(CALM)
        if unrest := cluster.unrest():
            self.violations.append(f"{CALM:.0f} s after the last failure, {unrest}")
        before = len(cluster.moves)
        cluster.run(STILL)
        if len(cluster.moves) > before:
            self.violations.append(f"an address moves although all is well: {cluster.moves[-1]}")
        most = LOSSY if cluster.wire.loss else FORGED if self.forged else TOGETHER
        # Nodes that do not hear each other answer together until the API server is back.
        if cluster.longest_together > most + 2 * TICK and not self.deaf:
            self.violations.append(
                f"two nodes answer for one address for {cluster.longest_together:.2f} s"
            )
        return Outcome(self.violations, cluster.lines, cluster.longest_together, self.longest_gap)

    def _plan(self, at: float) -> None:
        name = self.random.choice(list(self.cluster.nodes))
        fault = self.random.choice(FAULTS)
        self.cluster.time.at(at, lambda: fault(self, self.cluster.nodes[name]))

    def trouble(
        self,
        node: SimulatedNode,
        what: str,
        seconds: float,
        begin: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        """Have something fail for a while, at the latest until things are to calm down."""
        self.cluster.say(f"{node.name}: {what} for {seconds:.2f} s")
        self.troubled[node.name] += 1
        begin()

        def ended() -> None:
            self.cluster.say(f"{node.name}: {what} is over")
            self.troubled[node.name] -= 1
            self.steady_since[node.name] = self.cluster.time.now
            end()

        self.cluster.time.after(min(seconds, self._left()), ended)

    def _left(self) -> float:
        return max(0.1, 10.0 + TROUBLE - self.cluster.time.now)

    def _end(self) -> None:
        """Whatever was left off is on again."""
        for node in self.cluster.nodes.values():
            node.nic.powered = True
            node.start()

    def _check_gaps(self) -> None:
        now = self.cluster.time.now
        for address, since in self.cluster.gaps.items():
            steady = [n for n in self.cluster.nodes if self._steady(n, since)]
            if not steady:
                continue
            gap = now - max(since, min(self.steady_since[n] for n in steady))
            self.longest_gap = max(self.longest_gap, gap)
            if gap > GAP and not self.violations:
                self.violations.append(
                    f"at {now:.2f}, no node answers for {address} for {gap:.1f} s"
                )

    def _steady(self, name: str, since: float) -> bool:
        node = self.cluster.nodes[name]
        return not self.troubled[name] and node.running and since > 10.0


def kill(chaos: Chaos, node: SimulatedNode) -> None:
    seconds = chaos.random.choice((0.3, 1.0, 1.9, 2.5, 3.2, 4.0, 8.0, 15.0))
    chaos.trouble(node, "killed", seconds, node.kill, node.start)


def freeze(chaos: Chaos, node: SimulatedNode) -> None:
    seconds = chaos.random.choice((0.5, 1.5, 2.4, 2.9, 3.1, 4.0, 6.0, 9.0, 20.0))
    chaos.trouble(node, "frozen", seconds, node.freeze, node.thaw)


def power(chaos: Chaos, node: SimulatedNode) -> None:
    seconds = chaos.random.uniform(0.5, 20.0)
    chaos.trouble(node, "without power", seconds, node.power_off, node.boot)


def cut_api(chaos: Chaos, node: SimulatedNode) -> None:
    api, relist = chaos.cluster.api, chaos.random.random() < 0.5
    chaos.trouble(
        node,
        "cut off from the API",
        chaos.random.uniform(0.5, 25.0),
        lambda: api.cut(node.name),
        lambda: api.heal(node.name, relist=relist),
    )


def cut_api_of_all(chaos: Chaos, node: SimulatedNode) -> None:
    api, relist, seconds = (
        chaos.cluster.api,
        chaos.random.random() < 0.5,
        chaos.random.uniform(0.5, 25.0),
    )
    for name, each in chaos.cluster.nodes.items():
        chaos.trouble(
            each,
            "cut off from the API, as all are,",
            seconds,
            lambda name=name: api.cut(name),  # type: ignore[misc]
            lambda name=name: api.heal(name, relist=relist),  # type: ignore[misc]
        )


def cut_wire(chaos: Chaos, node: SimulatedNode) -> None:
    def cut() -> None:
        node.nic.segment = 1

    def heal() -> None:
        node.nic.segment = 0

    chaos.trouble(node, "on another segment", chaos.random.uniform(0.5, 25.0), cut, heal)


def cut_both(chaos: Chaos, node: SimulatedNode) -> None:
    cut_api(chaos, node)
    cut_wire(chaos, node)


def flap_carrier(chaos: Chaos, node: SimulatedNode) -> None:
    def set_to(carrier: bool) -> None:
        node.nic.carrier = carrier
        node.refresh()

    for number in range(chaos.random.randint(1, 4)):
        at = number * chaos.random.uniform(0.3, 1.5)
        seconds = chaos.random.uniform(0.05, 1.0)
        chaos.cluster.time.after(
            at,
            lambda seconds=seconds: chaos.trouble(  # type: ignore[misc]
                node, "without carrier", seconds, lambda: set_to(False), lambda: set_to(True)
            ),
        )


def flap_listeners(chaos: Chaos, node: SimulatedNode) -> None:
    unable = frozenset(each for each in chaos.cluster.addresses if chaos.random.random() < 0.7)

    def set_to(addresses: frozenset[str]) -> None:
        node.unable = addresses
        node.refresh()

    chaos.trouble(
        node,
        "without listeners",
        chaos.random.uniform(0.1, 6.0),
        lambda: set_to(unable),
        lambda: set_to(frozenset()),
    )


def exclude(chaos: Chaos, node: SimulatedNode) -> None:
    cluster = chaos.cluster

    def begin() -> None:
        cluster.excluded.add(node.name)
        cluster.want(cluster.addresses)

    def end() -> None:
        cluster.excluded.discard(node.name)
        cluster.want(cluster.addresses)

    chaos.trouble(node, "excluded", chaos.random.uniform(0.5, 10.0), begin, end)


def slow_api(chaos: Chaos, node: SimulatedNode) -> None:
    path = chaos.cluster.api.path(node.name)
    usual = path.latency, path.delay
    most = chaos.random.uniform(0.1, 2.0)

    def begin() -> None:
        path.latency, path.delay = (0.05, most), (0.02, most)

    def end() -> None:
        path.latency, path.delay = (0.002, 0.03), (0.002, 0.05)

    assert usual
    chaos.trouble(node, f"API slow by {most:.1f} s", chaos.random.uniform(1.0, 20.0), begin, end)


def drain(chaos: Chaos, node: SimulatedNode) -> None:
    def set_to(draining: bool) -> None:
        node.draining = draining
        node.refresh()

    seconds = chaos.random.uniform(0.5, 10.0)
    chaos.trouble(node, "draining", seconds, lambda: set_to(True), lambda: set_to(False))


def relist(chaos: Chaos, node: SimulatedNode) -> None:
    chaos.cluster.say(f"{node.name}: lists again")
    chaos.cluster.api.relist(node.name)


def delete_lease(chaos: Chaos, node: SimulatedNode) -> None:
    chaos.cluster.say(f"{node.name}: its Lease is deleted")
    chaos.cluster.api.delete(node.name)


def stutter(chaos: Chaos, node: SimulatedNode) -> None:
    """Frozen again and again, with hardly any time in between."""
    seconds = chaos.random.choice((0.7, 1.5, 2.2, 2.9, 3.2, 5.0))
    at = chaos.cluster.time.now
    for _ in range(chaos.random.randint(2, 6)):
        chaos.cluster.time.at(
            at, lambda: chaos.trouble(node, "frozen again", seconds, node.freeze, node.thaw)
        )
        at += seconds + chaos.random.uniform(0.005, 0.3)


def overwrite_lease(chaos: Chaos, node: SimulatedNode) -> None:
    """By a process with the same name on another machine, which then ends, or by a person."""
    chaos.forged = True
    instance = chaos.random.choice(("", "another"))
    holds = {} if chaos.random.random() < 0.5 else {chaos.cluster.addresses[0]: 7}
    seconds = chaos.random.uniform(0.1, 6.0)
    number = iter(range(10**9, 2 * 10**9))

    def write() -> None:
        chaos.cluster.api.overwrite(
            node.name, instance=instance, holds=holds, claims={}, renewals=next(number)
        )

    for each in range(int(seconds) + 1):
        chaos.cluster.time.after(float(each), write)
    chaos.trouble(node, "its Lease is overwritten", seconds, lambda: None, lambda: None)


FAULTS: Final[Sequence[Callable[[Chaos, SimulatedNode], None]]] = (
    kill,
    kill,
    freeze,
    freeze,
    power,
    cut_api,
    cut_api,
    cut_api_of_all,
    cut_wire,
    cut_both,
    flap_carrier,
    flap_listeners,
    exclude,
    slow_api,
    drain,
    relist,
    delete_lease,
    stutter,
    overwrite_lease,
)


def attempt(seed: int) -> Outcome:
    """Run one seed."""
    return Chaos(seed).run()
