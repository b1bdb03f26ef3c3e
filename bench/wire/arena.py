"""Runs scenarios: starts peers when they are first needed, and measures one after the other."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.wire import peers
from bench.wire.cluster import require_namespaces, uproxy_in_cluster
from bench.wire.kernel import share_priority
from bench.wire.measurements import Measured, Terms
from bench.wire.peers import Setup, Start, Subject
from bench.wire.places import Service
from bench.wire.processes import Unavailable, find_program, tree
from bench.wire.results import Outcome
from bench.wire.scenarios import Scenario
from bench.wire.statistics import in_turn
from bench.wire.uproxy_peer import uproxy

PEERS: Mapping[str, Start] = {
    "none": peers.direct,
    "haproxy": peers.haproxy(),
    "haproxy-bulk": peers.haproxy(bulk=True),
    "nginx": peers.nginx_stream,
    "go": peers.go_relay,
    "nftables": peers.nftables,
    "uproxy": uproxy(),
    "uproxy-epoll": uproxy(0, "--io-uring", "never"),
    "uproxy-never": uproxy_in_cluster("never"),
}

Say = Callable[[str], None]


class Arena:
    """Running backends, and the peers in front of them."""

    def __init__(
        self,
        services: Sequence[Service],
        directory: Path,
        descriptors: int,
        own_network: bool,
        stack: ExitStack,
        say: Say,
    ) -> None:
        self.skipped: dict[str, str] = {}
        """Peers that cannot be started here, and why. A scenario's own way to start one is named
        with the scenario: the peer can be measured in others."""
        self.failures: list[str] = []
        """Measurements that failed, and why."""
        self._services = services
        self._directory = directory
        self._descriptors = descriptors
        self._own_network = own_network
        self._stack = stack
        self._say = say
        self._subjects: dict[tuple[Start, int], Subject] = {}
        """By how it was started and the number of its workers."""
        self._numbers = itertools.count()

    def run(self, scenario: Scenario, names: Sequence[str], rounds: int, terms: Terms) -> Outcome:
        """Measure all rounds. Raises Unavailable if no peer can be measured."""
        if scenario.service and scenario.service not in {each.name for each in self._services}:
            raise Unavailable("there is no backend for it")
        if scenario.namespaces:
            require_namespaces()
        if scenario.tool:
            find_program(scenario.tool, scenario.tool)
        load = os.getloadavg()[0]
        self._start_all(scenario, names)
        results: dict[str, list[Measured | None]] = {}
        for number in range(rounds):
            left = [each for each in names if _label(scenario, each) not in self.skipped]
            for name in in_turn(left, number):
                self._say(f"{scenario.name}: round {number + 1} of {rounds}, {name}")
                measured = self._measure(scenario, name, terms)
                if _label(scenario, name) not in self.skipped:
                    results.setdefault(name, []).append(measured)
        if not results:
            raise Unavailable("there is nobody to measure")
        return Outcome(
            scenario=scenario.name,
            title=scenario.title,
            baseline=scenario.baseline,
            figures=scenario.figures,
            load=load,
            rounds={name: results[name] for name in names if name in results},
        )

    def _start_all(self, scenario: Scenario, names: Sequence[str]) -> None:
        """Start all peers before the first round, so that the same others run beside each one."""
        for name in names if not scenario.fresh else ():
            self._say(f"{scenario.name}: starting {name}")
            with suppress(Unavailable, OSError):
                self._running(scenario, name)

    def _measure(self, scenario: Scenario, name: str, terms: Terms) -> Measured | None:
        try:
            with self._subject(scenario, name) as subject, subject.in_use():
                return scenario.measure(subject, terms)
        except (Unavailable, OSError) as reason:
            if _label(scenario, name) not in self.skipped:
                self.failures.append(f"{scenario.name}: {name}: {reason}")
            return None

    @contextmanager
    def _subject(self, scenario: Scenario, name: str) -> Iterator[Subject]:
        if scenario.fresh:
            with _start(scenario, name)(self._setup(scenario.workers)) as subject:
                _settle(subject)
                yield subject
            return
        yield self._running(scenario, name)

    def _running(self, scenario: Scenario, name: str) -> Subject:
        """The peer, which is started if it is not running yet, and runs until the end."""
        start = _start(scenario, name)
        key = (start, scenario.workers)
        if key not in self._subjects:
            try:
                self._subjects[key] = self._stack.enter_context(
                    start(self._setup(scenario.workers))
                )
            except (Unavailable, OSError) as reason:
                self.skipped[_label(scenario, name)] = str(reason)
                raise
            _settle(self._subjects[key])
        return self._subjects[key]

    def _setup(self, workers: int) -> Setup:
        directory = self._directory / f"peer-{next(self._numbers)}"
        directory.mkdir()
        return Setup(
            services=self._services,
            workers=workers,
            directory=directory,
            descriptors=self._descriptors,
            own_network=self._own_network,
        )


def _start(scenario: Scenario, name: str) -> Start:
    return scenario.starts.get(name) or PEERS[name]


def _label(scenario: Scenario, name: str) -> str:
    return f"{scenario.name}: {name}" if name in scenario.starts else name


def _settle(subject: Subject) -> None:
    """Give workers, which have sessions of their own, the priority of the peers."""
    if subject.process is not None:
        share_priority(tree(subject.process.process.pid))


@contextmanager
def workspace() -> Iterator[Path]:
    """A directory for configurations, logs and bodies, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="uproxy-bench-", ignore_cleanup_errors=True) as path:
        yield Path(path)
