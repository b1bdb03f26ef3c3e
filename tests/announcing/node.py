"""A node of the simulated cluster: its process, which may be killed, frozen and restarted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.announcing.api import Api, Change, Watch
from tests.announcing.timeline import Timeline
from tests.announcing.wire import Nic, Wire
from uproxy.core.announcing.election import Election
from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.announcing.pace import LIFETIME
from uproxy.core.announcing.step import LocalInterface, OwnState, Step
from uproxy.core.announcing.view import Announceable

REACTION = 0.002
"""Seconds between an event and the process acting on it."""
LOADING = (0.2, 1.0)
"""Seconds from the start of a process to its first request to the API server. What its predecessor
has left on the interface is renewed at once."""


@dataclass
class Process:
    """One run of the program."""

    election: Election
    dead: bool = False
    wakes_at: float = float("inf")


@dataclass
class SimulatedNode:
    """One node."""

    name: str
    time: Timeline
    api: Api
    wire: Wire
    offset: float = 0.0
    """Of its clock."""
    rate: float = 1.0
    subnet: str = "192.0.2.0/24"
    nic: Nic = field(init=False)
    process: Process | None = None
    frozen: bool = False
    runs: int = 0
    own: OwnState = field(default_factory=OwnState)
    wanted: Mapping[str, Announceable] | None = None
    unable: frozenset[str] = frozenset()
    draining: bool = False
    hears: bool = True
    """Whether its processes have CAP_NET_RAW."""
    last: Step | None = None
    trace: Callable[[str], None] = lambda line: None
    _pending: list[Callable[[], None]] = field(default_factory=list)
    """What has happened while it was frozen."""

    def __post_init__(self) -> None:
        self.nic = Nic(self.name)
        self.wire.nics[self.name] = self.nic
        self.refresh()

    def clock(self) -> float:
        return self.offset + self.time.now * self.rate

    @property
    def running(self) -> bool:
        return self.process is not None and not self.frozen and self.nic.powered

    def refresh(self) -> None:
        """Have the process see what has become of the node."""
        interface = LocalInterface((self.subnet,), self.nic.carrier)
        self.own = OwnState(
            interfaces={"eth0": interface},
            unable=self.unable,
            draining=self.draining,
            hears=self.hears,
        )
        self.wake()

    def start(self) -> None:
        """Start the program, which finds what an earlier run has left on the interface."""
        if self.process is not None or not self.nic.powered:
            return
        self.runs += 1
        held_over = self.nic.left(self.time.now)
        instance = f"{self.name}.{self.runs}"
        process = Process(Election(self.name, instance, held_over=held_over))
        self.process, self.frozen, self._pending = process, False, []
        if self.hears:
            self.nic.hear = self._event(process, lambda e, a, m: e.heard(a, m, self.clock()))
        watch = Watch(
            self._event(process, lambda e, found: e.listed(found, self.clock())),
            self._event(process, self._take),
        )
        loading = self.api.random.uniform(*LOADING)
        self.time.after(loading, lambda: self._watch(process, watch))
        self.wake()

    def kill(self) -> None:
        """End the program at once. The kernel keeps the addresses for their lifetime."""
        if self.process is not None:
            self.process.dead = True
            self.process = None
            self.nic.hear = None
            self.api.unwatch(self.name)
            self.frozen = False

    def freeze(self) -> None:
        self.frozen = self.process is not None

    def thaw(self) -> None:
        if self.frozen:
            self.frozen = False
            pending, self._pending = self._pending, []
            if self.process is not None and self.api.random.random() < 0.5:
                # Timers may come before what has been received meanwhile.
                self.process.wakes_at = self.time.now
                self._run(self.process, self.time.now)
            for each in pending:
                each()
            self.wake()

    def power_off(self) -> None:
        self.kill()
        self.nic.powered = False
        self.nic.addresses.clear()

    def boot(self) -> None:
        self.nic.powered = True
        self.start()

    def wake(self, after: float = REACTION) -> None:
        process = self.process
        if process is None:
            return
        at = self.time.now + after
        if at < process.wakes_at:
            process.wakes_at = at
            self.time.at(at, lambda: self._run(process, at))

    def _watch(self, process: Process, watch: Watch) -> None:
        if not process.dead:
            self.api.watch(self.name, watch)

    def _take(self, election: Election, change: Change) -> None:
        if change.lease is not None:
            election.saw(change.lease, self.clock())
        else:
            election.gone(change.node, self.clock())

    def _event(self, process: Process, action: Callable[..., None]) -> Callable[..., None]:
        """What to do when something happens: at once, or when the process thaws."""

        def happened(*arguments: object) -> None:
            def run() -> None:
                if not process.dead:
                    action(process.election, *arguments)
                    self.wake()

            if process is not self.process:
                return
            if self.frozen:
                self._pending.append(run)
            else:
                run()

        return happened

    def _run(self, process: Process, at: float) -> None:
        if process.dead or process.wakes_at != at:
            return
        process.wakes_at = float("inf")
        if self.frozen:
            return
        step = process.election.decide(self.own, self.wanted, self.clock())
        self._carry_out(process, step)
        self.last = step
        self.wake(max(0.0, (step.wake_at - self.clock()) / self.rate))

    def _carry_out(self, process: Process, step: Step) -> None:
        now = self.time.now
        before = self.nic.left(now)
        for address in [each for each in self.nic.addresses if each not in step.announce]:
            del self.nic.addresses[address]
        for address in step.announce:
            self.nic.addresses[address] = now + LIFETIME
        if before.keys() != step.announce.keys():
            self.trace(f"{self.name} announces {', '.join(step.announce) or 'nothing'}")
        if step.lease is not None:
            self.api.write(self.name, step.lease, self._event(process, self._written))
        for address in step.gratuitous:
            self.wire.announce(self.name, address)
        for address in step.probe:
            answered = self._event(
                process,
                lambda e, mac, address=address: e.probed(address, mac, self.clock()),
            )
            self.wire.probe(self.name, address, _once(answered))

    def _written(self, election: Election, version: str | None) -> None:
        if version is None:
            election.write_failed(self.clock())
        elif version:
            election.wrote(version, self.clock())
        else:
            election.write_conflicted(self._current(), self.clock())

    def _current(self) -> AnnouncerLease | None:
        return self.api.leases.get(self.name)


def _once(call: Callable[..., None]) -> Callable[..., None]:
    called = [False]

    def only(*arguments: object) -> None:
        if not called[0]:
            called[0] = True
            call(*arguments)

    return only
