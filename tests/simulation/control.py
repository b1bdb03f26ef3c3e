"""The control process: what it opens, and what it says to the worker."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, Protocol

from msgspec.structs import replace

from tests.simulation.count_invariants import BackendSums
from tests.simulation.datagrams import DatagramSocket
from tests.simulation.files import File
from tests.simulation.machine import Machine, Mailbox
from tests.simulation.scenario import Scenario, Service, Step
from tests.simulation.streams import NODE, Address, Listening
from tests.simulation.world import Violation
from uproxy.core.flows.counters import Counters
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.net.messages import (
    Close,
    Drain,
    FromWorker,
    LocalClients,
    Open,
    Report,
    ToWorker,
    Unserved,
    Update,
    Witness,
)

PODS: Final = "198.51.100.0/24"
"""All clients, if they are pods."""


class Hearing(Protocol):
    """A worker, as far as it is told something."""

    def handle(self, message: ToWorker, descriptor: int | None) -> None: ...


class ReportChannel:
    """The worker's end of the channel, as far as it says something."""

    wants_write = False

    def __init__(
        self,
        lacking: Callable[[list[Frontend]], None],
        paths: Callable[[Report], None],
    ) -> None:
        self.sums: dict[ServicePortName, Counters] = {}
        self.backends = BackendSums()
        self._lacking = lacking
        self._paths = paths

    def flush(self) -> None:
        """Nothing ever waits."""

    def post(self, *messages: FromWorker) -> None:
        for message in messages:
            if isinstance(message, Report):
                for name, counters in message.ports:
                    self.sums.setdefault(name, Counters(dropped={})).add(counters)
                for each in message.backends:
                    self.backends.add(*each)
                self._paths(message)
            elif isinstance(message, Unserved):
                self._lacking(message.frontends)


class Control:
    """Says what is to be served, and acts on the steps of a scenario."""

    def __init__(self, machine: Machine, scenario: Scenario, random: Random) -> None:
        self.routes: list[Route] = []
        self.listening: dict[int, Listening | DatagramSocket] = {}
        """By the number of their service."""
        self.mailbox = Mailbox(machine.world)
        self.channel = ReportChannel(self._open_again, self._hear_of_paths)
        self.astray: tuple[ServicePortName, ...] = ()
        """What the worker has reported."""
        self._witnesses: tuple[Witness, ...] = ()
        self._world = machine.world
        self._machine = machine
        self._scenario = scenario
        self._random = random
        self._closing: dict[Frontend, DatagramSocket] = {}
        """Sockets that the worker is to close, and that no one else has."""
        self._drained = False
        """Whether no client is accepted any more."""

    def introduce(self) -> None:
        """Say which clients are pods, if any."""
        if self._scenario.pods:
            # Replies go astray on a path of their own.
            others = tuple(f"10.0.{number}.0/24" for number in self._scenario.astray)
            self._say(
                LocalClients(
                    (NODE,),
                    (PODS,),
                    preserved=("IPv4",),
                    pods=(PODS, *others),
                    astray=self.astray,
                    witnesses=self._witnesses,
                )
            )

    def serve(self, service: Service, addresses: list[Address]) -> None:
        """Another service, with these backends."""
        number = len(self.routes)
        wildcard = (number + self._scenario.random_seed) % 2
        backends = tuple(Backend(*address) for address in addresses)
        self.routes.append(
            Route(
                frontend=Frontend(
                    service.protocol, "0.0.0.0" if wildcard else "192.0.2.1", 80 + number
                ),
                owner=ServicePortName("default", f"service-{number}", "", service.protocol),
                kind=FrontendKind.CLUSTER_IP,
                backends=backends,
                serving=backends,
                balancer=service.balancer,
                proxy_protocol=service.proxy_protocol,
                affinity_timeout=service.affinity,
                preserves_pods=self._scenario.pods,
            )
        )
        self._open(number)

    def deliver(self, worker: Hearing, stop: Callable[[], None]) -> None:
        """Have the worker hear what was said."""
        for message, listening in self.mailbox.read():
            descriptor = None
            if listening is not None:
                descriptor = self._machine.descriptors.install(listening)
            if message is None:
                stop()
            elif callable(message):
                message()
            else:
                self._world.note("control", str(message)[:60])
                worker.handle(message, descriptor)
                self._check_closed(message)

    def take(self, step: Step) -> None:
        """A step that concerns what is served."""
        number = step.service
        if step.what == "update":
            self._update(number)
        elif step.what == "drain":
            self._drain()
        elif number in self.listening:
            self._take_on_listener(step, self.listening[number])
        elif step.what == "reopen" and not self._drained:
            self._open(number)

    def ask(self, callback: Callable[[], None]) -> None:
        """Have the process call this, as it does what a message says."""
        self.mailbox.post((callback, None))

    def end(self) -> None:
        """Nothing is served any more, and all listeners are closed."""
        for number in list(self.listening):
            self._close(number, 0.0)
        self.mailbox.post((None, None))

    def _take_on_listener(self, step: Step, listening: Listening | DatagramSocket) -> None:
        if step.what == "close":
            self._close(step.service, step.grace)
        elif isinstance(listening, DatagramSocket):
            return
        elif step.what == "pause":
            listening.pause()
        elif step.what == "resume" and not self._drained:
            listening.resume()
            self._say(Update(self.routes[step.service]))

    def _drain(self) -> None:
        self._say(Drain())
        self._drained = True
        for each in self.listening.values():
            if isinstance(each, Listening):
                self._world.after(1.0, each.pause)

    def _open(self, number: int) -> None:
        frontend, network = self.routes[number].frontend, self._machine.network
        address = (frontend.address, frontend.port)
        listening: Listening | DatagramSocket
        if frontend.protocol == "TCP":
            listening = Listening(self._world, address)
            network.listeners[address] = [listening]
        else:
            room = self._scenario.buffers[-1] * 16
            listening = DatagramSocket(self._world, network, f"listener {address}", receives=room)
            network.bind(listening, address)
        listening.take()
        self.listening[number] = listening
        self._say(Open(self.routes[number]), listening)

    def _open_again(self, frontends: list[Frontend]) -> None:
        """What the worker could not open."""
        for number, listening in self.listening.items():
            if self.routes[number].frontend in frontends:
                self._say(Open(self.routes[number]), listening)

    def _hear_of_paths(self, report: Report) -> None:
        ports = [each.port for each in report.astray]
        if set(ports) & set(self.astray):
            raise Violation(f"{ports} are reported astray once more")
        if report.astray or report.witnesses or report.lost:
            self.astray += tuple(ports)
            kept = [each for each in self._witnesses if each not in report.lost]
            self._witnesses = (*kept, *report.witnesses)
            self.introduce()

    def _update(self, number: int) -> None:
        """Some backends are gone, or back."""
        route = self.routes[number]
        addresses = sorted(self._machine.network.hosts)
        of_service = [each for each in addresses if each[0].startswith(f"10.0.{number}.")]
        backends = tuple(Backend(*each) for each in of_service)
        kept = tuple(each for each in backends if self._random.random() < 0.7)
        self.routes[number] = replace(route, backends=kept or backends, serving=kept)
        if number in self.listening:
            self._say(Update(self.routes[number]))

    def _close(self, number: int, grace: float) -> None:
        frontend, listening = self.routes[number].frontend, self.listening.pop(number)
        self._say(Close(frontend, grace))
        if isinstance(listening, DatagramSocket):
            self._closing[frontend] = listening
        listening.give_back()

    def _check_closed(self, message: ToWorker) -> None:
        """The port of a UDP frontend is free at once. An operation of the ring that still refers to
        the socket would keep it."""
        if isinstance(message, Close):
            closed = self._closing.pop(message.frontend, None)
            if closed is not None and not closed.released:
                raise Violation(f"{closed.name} was closed, and its port is still taken")

    def _say(self, message: ToWorker, listening: File | None = None) -> None:
        self.mailbox.post((message, listening))
