"""One run of a scenario: a worker's data plane on a simulated kernel, from beginning to end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, cast

from tests.simulation import direction_invariants, invariants, record_invariants, udp_invariants
from tests.simulation.backends import Backend as Server
from tests.simulation.control import Control
from tests.simulation.detaching import Detaching
from tests.simulation.drawing import draw, script
from tests.simulation.machine import Machine
from tests.simulation.network import Reply
from tests.simulation.peers import Peer, Script, stream_of
from tests.simulation.scenario import Client, Mode, Scenario, Step
from tests.simulation.streams import Address
from tests.simulation.udp_peers import UdpClient, UdpServer
from tests.simulation.world import Fault, Violation, World
from uproxy.dataplane.context import Context
from uproxy.dataplane.engine import choose_engine
from uproxy.dataplane.reactor import RingReactor
from uproxy.dataplane.tcp.flow import Flow
from uproxy.dataplane.tcp.shared_buffers import SpliceMode
from uproxy.dataplane.worker import Worker
from uproxy.net.messages import Settings

REPORT_INTERVAL = 4.0
DEADLINE = 90.0
"""Seconds after which all clients and backends have ended, whatever has happened."""
SETTLED = 8.0
"""Seconds in which flows are over whose ends have ended: longer than all dials may take."""


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


class Simulation:
    """Everything of one run."""

    def __init__(self, scenario: Scenario, *, tracing: bool) -> None:
        self.scenario = scenario
        self.world = World(
            str(scenario.random_seed), scenario.rates, tracing=tracing, slowness=scenario.slowness
        )
        self.world.looks.append(lambda: invariants.bounded(self))
        if scenario.mode == "udp":
            self.world.looks.append(lambda: udp_invariants.flows_are_in_a_state(self))
        self.world.looks.append(
            lambda: direction_invariants.check(invariants.flows_of(self), self.reactor)
        )
        self.detaching = Detaching()
        self.random = Random(scenario.random_seed)
        self.machine = Machine(self.world, scenario)
        self.machine.watched = lambda file: invariants.leaves_for_a_reason(self, file)
        self.machine.network.sizes = scenario.buffers
        self.machine.network.lay(scenario.mtu, scenario.narrows, segments=scenario.segments)
        self.machine.pipes.largest = scenario.largest_pipe
        self.violations: list[str] = []
        self.clients: list[Peer] = []
        self.refused: list[int] = []
        """Clients that found no listener, by number."""
        self.servers: list[Server] = []
        self.udp_clients: list[UdpClient] = []
        self.udp_servers: list[UdpServer] = []
        self.control = Control(self.machine, scenario, self.random)
        self._scripts = 100
        self._replies = 0

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
        splice: SpliceMode = "always" if self.scenario.mode == "splice" else "adaptive"
        self.engine = choose_engine(loop, self.machine.kernel, splice=splice)
        self.reactor = self.engine.reactor
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
        if self.world.happened[Fault.EPOLL_FAILS] and isinstance(error, OSError):
            return  # And epoll is asked again.
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
        spare = scenario.spare_descriptors
        self.context = Context(
            self.reactor, settings, self.random.random,
            spare if scenario.knows_limit else sys.maxsize,
        )  # fmt: skip
        if isinstance(self.reactor, RingReactor):
            self.reactor.ring.pause = self.world.call
        self.reactor.allow_busy_poll(scenario.busy_poll)
        self.worker = Worker(cast("Any", self.control.channel), self.context, self.engine)
        self.flows = self.worker._tcp
        self.flows.listeners = cast("Any", Listeners())
        self._watch_pairs()
        descriptor = descriptors.install(self.control.mailbox)
        hear = partial(self.control.deliver, self.worker, self.loop.stop)
        self.loop.add_reader(descriptor, hear)
        self.loop.call_later(REPORT_INTERVAL, self._report)
        self.control.introduce()
        for number in range(len(scenario.services)):
            self._add_service(number)
        descriptors.limit = (
            len(descriptors.files) + len(self.control.routes) + scenario.spare_descriptors
        )
        for number, each in enumerate(scenario.clients):
            self._add_client(number, each)
        for number, sender in enumerate(scenario.senders):
            target = ("192.0.2.1", self.control.routes[sender.service].frontend.port)
            client = UdpClient(self.world, self.machine.network, number, target, sender.sending)
            self.udp_clients.append(client)
        for step in scenario.steps:
            self.world.after(step.at, lambda step=step: self._take(step))  # type: ignore[misc]
        self.world.after(0.5, self._look)
        self.world.faulty = True

    def _watch_pairs(self) -> None:
        """Know which connections the proxy has put together."""
        dialer = self.flows.dialer
        succeeded = dialer.succeeded

        def watched(flow: Flow) -> None:
            succeeded(flow)
            first, second = (
                cast("Any", sock).file.far.owner for sock in (flow.client_sock, flow.sock)
            )
            first.pair, second.pair = second, first
            first.paired = second.paired = self.world.now
            self.world.note("proxy", f"pairs {first.name} with {second.name}")

        dialer.succeeded = watched  # type: ignore[assignment, method-assign]

    def _add_service(self, number: int) -> None:
        service, network = self.scenario.services[number], self.machine.network
        addresses = []
        for index, reply in enumerate(service.replies):
            address = (f"10.0.{number}.{index + 1}", 8080)
            addresses.append(address)
            if number in self.scenario.astray:
                network.astray.add(address)
            if service.protocol == "TCP":
                server = Server(self.world, address, reply, self._next_script)
                self.servers.append(server)
                network.hosts[address] = server
            else:
                host = UdpServer(
                    self.world, network, address, reply, service.replying, self._next_reply
                )
                self.udp_servers.append(host)
                network.hosts[address] = host
        self.control.serve(service, addresses)

    def _next_reply(self) -> int:
        self._replies += 1
        return self._replies

    def _next_script(self) -> Script:
        self._scripts += 1
        if self._scripts > 250:
            raise Violation("far too many connections for so few clients")
        if self.scenario.answer is not None:
            return replace(self.scenario.answer, data=stream_of(self._scripts, 3000))
        scenario = self.scenario
        return script(
            self.random, self._scripts, scenario.buffers, waits=True, rough=scenario.rough,
            many=len(scenario.clients),
        )  # fmt: skip

    def _add_client(self, number: int, client: Client) -> None:
        frontend = self.control.routes[client.service].frontend
        target = ("192.0.2.1", frontend.port)
        stream = self.machine.network.stream(f"end of client {number}")
        peer = Peer(self.world, f"client {number}", stream, client.script)
        stream.owner = peer
        self.clients.append(peer)
        self.world.after(client.at + 1e-6, lambda: self._connect(number, peer, target))

    def _connect(self, number: int, peer: Peer, target: Address) -> None:
        address = (f"198.51.100.{number + 1}", record_invariants.FIRST_PORT + number)
        if self.machine.network.connect(peer.stream, address, target) is None:
            self.refused.append(number)
            peer.finish("is refused")
        else:
            self.world.note(peer.name, f"connects from port {address[1]}")
            peer.begin()

    def _report(self) -> None:
        self.worker.report()
        self.loop.call_later(REPORT_INTERVAL, self._report)

    def _take(self, step: Step) -> None:
        self.world.note("control", f"{step.what} service {step.service}")
        if step.what == "collect":
            self.flows.collect()
        elif step.what == "detach":
            self.control.ask(lambda: self._detach(step.backend))
        elif step.what == "turn":
            if self.udp_servers:
                server = self.udp_servers[step.backend % len(self.udp_servers)]
                accepts = server.reply is Reply.ACCEPTS
                server.reply = Reply.REFUSES if accepts else Reply.ACCEPTS
        else:
            self.control.take(step)

    def _detach(self, number: int) -> None:
        detached = self.detaching.detach(list(invariants.flows_of(self)), number)
        self.world.note("control", f"detaches {detached}")

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
        finished = all(peer.finished for peer in self.peers) and not self.worker.has_unserved
        return finished and all(client.finished for client in self.udp_clients)

    def _has_accepted_lately(self) -> bool:
        """Whether a client that has gone meanwhile was accepted, as its turn had come."""
        since = self.world.now - SETTLED
        return any((each.accepted or 0.0) > since for each in self.machine.network.accepted)

    def _settled(self) -> None:
        if not self._all_finished() or self._has_accepted_lately():
            self._look()
            return
        invariants.flows_have_ended(self)
        self.control.end()


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
    except Exception as error:
        violations.append(f"the process ends: {error!r}")
    world = simulation.world
    return Outcome(scenario, violations, world.trace or [], world.count, world.happened.total())
