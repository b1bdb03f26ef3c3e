"""One run of a scenario: a worker's data plane on a simulated kernel, from beginning to end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any, cast

from tests.simulation import invariants
from tests.simulation.backends import Backend as Server
from tests.simulation.datagrams import DatagramSocket
from tests.simulation.files import File
from tests.simulation.machine import Machine, Mailbox
from tests.simulation.network import Reply
from tests.simulation.peers import Peer, Script, stream_of
from tests.simulation.scenario import Client, Mode, Scenario, Step, draw, script
from tests.simulation.streams import Address, Listening
from tests.simulation.udp_peers import Replying, UdpClient, UdpServer
from tests.simulation.world import Violation, World
from uproxy.channel import Close, Drain, FromWorker, Open, Report, Settings, ToWorker, Update
from uproxy.core.counters import Counters
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.dataplane.context import Context
from uproxy.dataplane.engine import TcpEngine
from uproxy.dataplane.flow import Flow
from uproxy.dataplane.reactor import Reactor
from uproxy.dataplane.worker import Worker

REPORT_INTERVAL = 4.0
DEADLINE = 90.0
"""Seconds after which everybody has ended whatever has happened."""
SETTLED = 8.0
"""Seconds in which the flows of those who have ended are over: longer than all dials may take."""


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario."""

    scenario: Scenario
    violations: list[str]
    trace: list[str]
    events: int
    faults: int
    """How many the kernel has had."""


class Ordered(dict[Any, None]):
    """A set in the order of its making: a replay must not depend on addresses of objects."""

    def add(self, each: Any) -> None:
        self[each] = None

    def discard(self, each: Any) -> None:
        self.pop(each, None)


class Listeners(Ordered):
    def add(self, each: Any) -> None:
        each.flows = Ordered()
        super().add(each)


class ReportChannel:
    """The worker's end of the channel, as far as it says something."""

    wants_write = False

    def __init__(self) -> None:
        self.sums: dict[ServicePortName, Counters] = {}

    def flush(self) -> None:
        """Nothing ever waits."""

    def post(self, *messages: FromWorker) -> None:
        for message in messages:
            if isinstance(message, Report):
                for name, counters in message.ports:
                    self.sums.setdefault(name, Counters(dropped={})).add(counters)


class Simulation:
    """Everything of one run."""

    def __init__(self, scenario: Scenario, *, tracing: bool) -> None:
        self.scenario = scenario
        self.world = World(str(scenario.random_seed), scenario.rates, tracing=tracing)
        self.world.looks.append(lambda: invariants.bounded(self))
        self.random = Random(scenario.random_seed)
        self.machine = Machine(self.world, scenario)
        self.machine.network.sizes = scenario.buffers
        self.machine.pipes.largest = scenario.largest_pipe
        self.violations: list[str] = []
        self.clients: list[Peer] = []
        self.refused: list[int] = []
        """Clients that found nobody listening, by number."""
        self.servers: list[Server] = []
        self.udp_clients: list[UdpClient] = []
        self.udp_servers: list[UdpServer] = []
        self.routes: list[Route] = []
        self.listening: dict[int, Listening | DatagramSocket] = {}
        self.channel = ReportChannel()
        self.drained = False
        """Whether nobody is accepted any more."""
        self._scripts = 100
        self._replies = 0
        self._mailbox = Mailbox(self.world)

    @property
    def peers(self) -> Iterator[Peer]:
        yield from self.clients
        for server in self.servers:
            yield from server.peers

    def run(self) -> None:
        """Raises Violation."""
        logger = logging.getLogger("uproxy")
        log = _Log(self)
        logger.addHandler(log)
        propagate, logger.propagate = logger.propagate, False
        try:
            self._run()
        finally:
            logger.removeHandler(log)
            logger.propagate = propagate

    def _run(self) -> None:
        loop = self.loop = self.machine.new_loop(ring=self.scenario.on_ring)
        loop.set_exception_handler(lambda _, problem: self._problem(problem))
        self.reactor = Reactor(loop, self.machine.kernel)
        loop.call_soon(self._begin)
        try:
            loop.run_forever()
            self.world.faulty = False
            self._check()
            self.worker.close()
            invariants.nothing_is_left_of_flows(self)
            self.reactor.close()
            for _ in range(3):
                loop.call_soon(loop.stop)
                loop.run_forever()
            invariants.ring_is_whole(self)
        except Violation as violation:
            self.violations.append(str(violation))
            raise
        finally:
            self.machine.descriptors.limit = 1 << 16
            with suppress(Violation):
                loop.close()
        self._check()
        invariants.nothing_is_left(self)

    def _check(self) -> None:
        if self.violations:
            raise Violation("; ".join(self.violations))

    def _problem(self, problem: dict[str, Any]) -> None:
        error = problem.get("exception")
        self.violations.append(f"{problem.get('message')}: {error!r}")
        self.loop.stop()

    def _begin(self) -> None:
        scenario, descriptors = self.scenario, self.machine.descriptors
        settings = Settings(
            worker=0,
            workers=1,
            max_flows=scenario.max_flows,
            udp_timeout=5.0,
            tcp_idle_timeout=scenario.idle_timeout,
            half_close_timeout=scenario.half_close_timeout,
            busy_poll=scenario.busy_poll,
        )
        self.context = Context(self.reactor, settings, self.random.random)
        if self.reactor.ring is not None:
            self.reactor.ring.pause = self.world.call
            self.reactor.ring.watch.allowed = scenario.busy_poll
        self.worker = Worker(cast("Any", self.channel), self.context)
        if scenario.mode == "splice":
            self.worker._tcp.close()
            self.worker._tcp = TcpEngine(self.context, splice="always")
        self.engine = self.worker._tcp
        self.engine.listeners = cast("Any", Listeners())
        self._watch_pairs()
        descriptor = descriptors.install(self._mailbox)
        self.loop.add_reader(descriptor, self._hear)
        self.loop.call_later(REPORT_INTERVAL, self._report)
        for number in range(len(scenario.services)):
            self._add_service(number)
        descriptors.limit = len(descriptors.files) + len(self.routes) + scenario.spare_descriptors
        for number, each in enumerate(scenario.clients):
            self._add_client(number, each)
        for number, sender in enumerate(scenario.senders):
            target = ("192.0.2.1", self.routes[sender.service].frontend.port)
            client = UdpClient(self.world, self.machine.network, number, target, sender.sending)
            self.udp_clients.append(client)
        for step in scenario.steps:
            self.world.after(step.at, lambda step=step: self._take(step))  # type: ignore[misc]
        self.world.after(0.5, self._look)
        self.world.faulty = True

    def _watch_pairs(self) -> None:
        """Know which connections the proxy has put together."""
        dialer = self.engine.dialer
        succeeded = dialer.succeeded

        def watched(flow: Flow) -> None:
            succeeded(flow)
            first, second = (
                cast("Any", sock).file.far.owner for sock in (flow.client_sock, flow.sock)
            )
            first.pair, second.pair = second, first
            self.world.note("proxy", f"pairs {first.name} with {second.name}")

        dialer.succeeded = watched  # type: ignore[method-assign]

    def _add_service(self, number: int) -> None:
        service, hosts = self.scenario.services[number], self.machine.network.hosts
        addresses = []
        for index, reply in enumerate(service.replies):
            address = (f"10.0.{number}.{index + 1}", 8080)
            addresses.append(address)
            if service.protocol == "TCP":
                server = Server(self.world, address, reply, self._next_script)
                self.servers.append(server)
                hosts[address] = server
            else:
                hosts[address] = self._udp_server(address, reply, service.replying)
        wildcard = (number + self.scenario.random_seed) % 2
        frontend = Frontend(service.protocol, "0.0.0.0" if wildcard else "192.0.2.1", 80 + number)
        self.routes.append(
            Route(
                frontend=frontend,
                owner=ServicePortName("default", f"service-{number}", "", service.protocol),
                kind=FrontendKind.CLUSTER_IP,
                backends=tuple(Backend(*address) for address in addresses),
                serving=tuple(Backend(*address) for address in addresses),
                balancer=service.balancer,
                proxy_protocol=service.proxy_protocol,
                affinity_timeout=service.affinity,
            )
        )
        self._open(number)

    def _udp_server(self, address: Address, reply: Reply, replying: Replying) -> UdpServer:
        network = self.machine.network
        server = UdpServer(self.world, network, address, reply, replying, self._next_reply)
        self.udp_servers.append(server)
        return server

    def _next_reply(self) -> int:
        self._replies += 1
        return self._replies

    def _next_script(self) -> Script:
        self._scripts += 1
        if self._scripts > 250:
            raise Violation("far too many connections for so few clients")
        if self.scenario.answer is not None:
            return replace(self.scenario.answer, data=stream_of(self._scripts, 20_000))
        return script(self.random, self._scripts, self.scenario.buffers, waits=True)

    def _add_client(self, number: int, client: Client) -> None:
        frontend = self.routes[client.service].frontend
        target = ("192.0.2.1", frontend.port)
        stream = self.machine.network.stream(f"end of client {number}")
        peer = Peer(self.world, f"client {number}", stream, client.script)
        stream.owner = peer
        self.clients.append(peer)
        self.world.after(client.at + 1e-6, lambda: self._connect(number, peer, target))

    def _connect(self, number: int, peer: Peer, target: Address) -> None:
        address = (f"198.51.100.{number + 1}", 40_000 + number)
        if self.machine.network.connect(peer.stream, address, target) is None:
            self.refused.append(number)
            peer.finish("is refused")
        else:
            self.world.note(peer.name, f"connects from port {address[1]}")
            peer.begin()

    def _open(self, number: int) -> None:
        frontend, network = self.routes[number].frontend, self.machine.network
        address = (frontend.address, frontend.port)
        listening: Listening | DatagramSocket
        if frontend.protocol == "TCP":
            listening = Listening(self.world, address)
            network.listeners[address] = [listening]
        else:
            room = self.scenario.buffers[-1] * 16
            listening = DatagramSocket(self.world, network, f"listener {address}", receives=room)
            network.bind(listening, address)
        listening.take()
        self.listening[number] = listening
        self._say(Open(self.routes[number]), listening)

    def _say(self, message: ToWorker, listening: File | None = None) -> None:
        self._mailbox.post((message, listening))

    def _hear(self) -> None:
        for message, listening in self._mailbox.read():
            descriptor = None
            if listening is not None:
                descriptor = self.machine.descriptors.install(listening)
            if message is None:
                self.loop.stop()
            else:
                self.world.note("control", str(message)[:60])
                self.world.faulty = not isinstance(message, Open)
                self.worker.handle(message, descriptor)
                self.world.faulty = True

    def _report(self) -> None:
        self.worker.report()
        self.loop.call_later(REPORT_INTERVAL, self._report)

    def _take(self, step: Step) -> None:
        """A step of the control process."""
        self.world.note("control", f"{step.what} service {step.service}")
        number = step.service
        if step.what == "update":
            self._update(number)
        elif step.what == "drain":
            self._say(Drain())
            self.drained = True
            for each in self.listening.values():
                if isinstance(each, Listening):
                    self.world.after(1.0, each.pause)
        elif step.what == "collect":
            self.engine.collect()
        elif number in self.listening:
            self._take_on_listener(step, self.listening[number])
        elif step.what == "reopen" and not self.drained:
            self._open(number)

    def _take_on_listener(self, step: Step, listening: Listening | DatagramSocket) -> None:
        if step.what == "close":
            self._close(step.service, step.grace)
        elif step.what == "turn":
            self._turn(step)
        elif isinstance(listening, DatagramSocket):
            return
        elif step.what == "pause":
            listening.pause()
        elif step.what == "resume" and not self.drained:
            listening.resume()
            self._say(Update(self.routes[step.service]))

    def _turn(self, step: Step) -> None:
        server = self.udp_servers[step.backend % len(self.udp_servers)]
        accepts = server.reply is Reply.ACCEPTS
        server.reply = Reply.REFUSES if accepts else Reply.ACCEPTS

    def _update(self, number: int) -> None:
        route = self.routes[number]
        addresses = sorted(self.machine.network.hosts)
        of_service = [each for each in addresses if each[0].startswith(f"10.0.{number}.")]
        backends = [Backend(*each) for each in of_service]
        kept = tuple(each for each in backends if self.random.random() < 0.7)
        self.routes[number] = Route(
            frontend=route.frontend, owner=route.owner, kind=route.kind,
            backends=kept or tuple(backends), serving=kept, balancer=route.balancer,
            proxy_protocol=route.proxy_protocol, affinity_timeout=route.affinity_timeout,
        )  # fmt: skip
        if number in self.listening:
            self._say(Update(self.routes[number]))

    def _close(self, number: int, grace: float) -> None:
        self._say(Close(self.routes[number].frontend, grace))
        self.listening.pop(number).give_back()

    def _look(self) -> None:
        """Twice a second: whether all goes on, and whether all has ended."""
        invariants.goes_on(self)
        if self._all_finished():
            self.world.after(SETTLED, self._settled)
        elif self.world.now > 1000.0 + DEADLINE:
            waiting = [peer.name for peer in self.peers if not peer.finished]
            raise Violation(f"never ends: {', '.join(waiting)}")
        else:
            self.world.after(0.5, self._look)

    def _all_finished(self) -> bool:
        finished = all(peer.finished for peer in self.peers)
        return finished and all(client.finished for client in self.udp_clients)

    def _settled(self) -> None:
        if not self._all_finished():
            self._look()
            return
        invariants.flows_have_ended(self)
        for number in list(self.listening):
            self._close(number, 0.0)
        self._mailbox.post((None, None))


class _Log(logging.Handler):
    """What the data plane logs goes to the trace."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__()
        self._simulation = simulation

    def emit(self, record: logging.LogRecord) -> None:
        world = self._simulation.world
        if world.trace is not None:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f" ({record.exc_info[1]!r})"
            world.note("log", text)


def simulate(seed: str, mode: Mode, *, tracing: bool = False) -> Outcome:
    """Run what a seed stands for, and check it."""
    return run(draw(seed, mode), tracing=tracing)


def run(scenario: Scenario, *, tracing: bool = False) -> Outcome:
    simulation = Simulation(scenario, tracing=tracing)
    violations = []
    try:
        simulation.run()
        violations += invariants.violations(simulation)
    except Violation as violation:
        violations.append(str(violation))
    world = simulation.world
    return Outcome(scenario, violations, world.trace or [], world.count, world.happened.total())
