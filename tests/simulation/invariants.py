"""What must hold, whatever the kernel, the network, clients and backends have decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from tests.simulation import count_invariants, record_invariants, udp_invariants
from tests.simulation.files import File
from tests.simulation.headers import header_of, is_part_of_header, length_of_header
from tests.simulation.network import Reply
from tests.simulation.peers import Peer
from tests.simulation.streams import Stream
from tests.simulation.world import Fault, Violation
from uproxy.core.flows.counters import Counters
from uproxy.dataplane.reactor import RingReactor
from uproxy.dataplane.tcp.epoll_direction import EpollDirection
from uproxy.dataplane.tcp.ring_direction import BULK
from uproxy.uring.ring import BUFFER_SIZE

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

BOUND: Final = 64 * 1024
"""Bytes that are held for a direction, beyond sockets and pipes."""
PATIENCE: Final = 6.0
"""Seconds in which anything that can move does."""


def bounded(simulation: Simulation) -> None:
    """What is held for a direction has a bound."""
    for flow in flows_of(simulation):
        if flow.mover is None:
            continue
        detached = flow in simulation.detaching.flows
        bound = max(BOUND, simulation.scenario.largest_pipe) if detached else BOUND
        for direction in (flow.mover.from_client, flow.mover.from_backend):
            by_epoll = isinstance(direction, EpollDirection)
            count = len(direction.held or b"") if by_epoll else direction.pending
            if count > bound:
                raise Violation(f"{count} bytes are held for one direction")


def leaves_for_a_reason(simulation: Simulation, file: File) -> None:
    """A flow stays with io_uring unless it carries bulk, meets a full or broken socket, is
    half-closed, or is detached."""
    if not isinstance(file, Stream) or not file.by_ring.received:
        return
    if file in simulation.detaching.files:
        return
    other = _other_of(file)
    for each in (file, other) if other is not None else (file,):
        passage = each.by_ring
        if passage.refused or passage.most_full >= BULK or each.ended:
            return
    raise Violation(f"{file.name} leaves the ring without a reason")


def _other_of(stream: Stream) -> Stream | None:
    """The stream of the process that it relays to."""
    owner = stream.far.owner if stream.far is not None else None
    return owner.pair.stream.far if owner is not None and owner.pair is not None else None


def goes_on(simulation: Simulation) -> None:
    """Whoever reads gets what was sent, and what can end does."""
    now = simulation.world.now
    for peer in simulation.peers:
        pair = peer.pair
        if pair is None:
            _is_served(simulation, peer)
            continue
        if peer.finished or not peer.wants_to_read or now - peer.moved < PATIENCE:
            continue
        if pair.stream.far is None or now - pair.moved < PATIENCE:
            continue
        there = len(peer.received)
        header = len(header_of(simulation, peer))
        if there < pair.stream.taken + header and not pair.stream.was_reset:
            raise Violation(
                f"{peer.name} has {there} bytes, and waits for more of the"
                f" {pair.stream.taken + header} that {pair.name} has sent"
            )


def _is_served(simulation: Simulation, peer: Peer) -> None:
    """A client that was accepted gets a backend, or is reset."""
    if peer.finished or peer not in simulation.clients or peer.stream.far is None:
        return
    accepted = peer.stream.far.accepted
    if accepted is None or not peer.stream.far.references:
        return
    if simulation.world.now - accepted > 3 * PATIENCE:
        raise Violation(f"{peer.name} was accepted long ago and has no backend yet")


def flows_have_ended(simulation: Simulation) -> None:
    """Both ends of all flows are gone, and it is a while ago."""
    flows = list(flows_of(simulation))
    if flows or simulation.context.active:
        raise Violation(f"remains: {flows[0]!r}" if flows else "UDP flows remain")


def nothing_is_left_of_flows(simulation: Simulation) -> None:
    """After the worker has closed everything, before its loop ends."""
    reactor, flows, context = simulation.reactor, simulation.flows, simulation.context
    if context.active:
        raise Violation(f"{context.active} flows are left")
    if flows.movers.shared.pipes.used:
        raise Violation("a pipe is left")
    for name in ("_callbacks", "_polls"):
        if left := getattr(reactor, name, None):
            raise Violation(f"left in the reactor: {name[1:]} {left}")
    for owner, port in context.ports.all.items():
        if any(each.active for each in port.balancer.tallies.values()):
            raise Violation(f"the balancer of {owner} counts flows that are over")
    if reactor.failures > simulation.world.happened[Fault.EPOLL_FAILS]:
        raise Violation(f"{reactor.failures} callbacks failed")


def ring_is_whole(simulation: Simulation) -> None:
    """After a few turns in which nothing was to be done."""
    reactor, queues = simulation.reactor, simulation.machine.queues
    simulation._check()
    pending = [each for each in _scheduled(simulation) if "_report" not in str(each)]
    if pending:
        raise Violation(f"a timer is left: {pending[0]!r}")
    if not isinstance(reactor, RingReactor) or queues is None:
        return
    ring = reactor.ring
    for bgid, group in queues.buffer_rings.items():
        group.look()
        if group.lent:
            raise Violation(f"buffers of group {bgid} are not given back: {sorted(group.lent)}")
    others = {key: each for key, each in ring._callbacks.items() if not _is_of_loop(each)}
    if others:
        raise Violation(f"callbacks of the ring are left: {others}")
    own = ring._callbacks.keys()
    armed = [str(each.entry) for each in queues.armed if each.entry.user_data not in own]
    if armed:
        raise Violation(f"operations of the ring are left: {armed}")


def nothing_is_left(simulation: Simulation) -> None:
    """After all has ended."""
    files = simulation.machine.descriptors.files
    left = {fd: file.name for fd, file in files.items() if file.name != "channel"}
    if left:
        raise Violation(f"descriptors are left: {left}")
    network = simulation.machine.network
    files_ = cast("list[File]", [*network.sent, *network.accepted, *network.opened])
    held = [file.name for file in files_ if file.references]
    if held:
        raise Violation(f"files are left: {held}")


def violations(simulation: Simulation) -> list[str]:
    """Of what clients and backends have seen, and of what was counted."""
    found: list[str] = []
    for peer in simulation.clients:
        found += _of_direction(simulation, peer)
    for server in simulation.servers:
        for peer in server.peers:
            found += _of_direction(simulation, peer)
    found += _replaced(simulation)
    total, udp_total = _total(simulation, "TCP"), _total(simulation, "UDP")
    if simulation.udp_servers:
        found += udp_invariants.violations(simulation, udp_total)
    found += record_invariants.violations(simulation, {"TCP": total, "UDP": udp_total})
    found += _miscounted(simulation, total)
    found += count_invariants.violations(simulation)
    found += _blamed(simulation, total)
    found += _hidden(simulation)
    if simulation.scenario.knows_limit:
        found += _ran_out(simulation)
    if simulation.scenario.gentle:
        found += _incomplete(simulation)
    if simulation.scenario.prompt:
        found += [
            f"{peer.name} had to wait for {peer.paired - peer.began:.1f} s"
            for peer in simulation.clients
            if peer.paired - peer.began > 1.0
        ]
    return found


def _of_direction(simulation: Simulation, peer: Peer) -> list[str]:
    """A prefix of what the other one has sent; behind a FIN, all of it."""
    pair, received = peer.pair, bytes(peer.received)
    expected = header_of(simulation, peer)
    if pair is None:
        if received and not is_part_of_header(simulation, peer):
            return [f"{peer.name} has received {len(received)} bytes without a backend"]
        if peer.saw_end and peer in simulation.clients:
            return [f"{peer.name} has seen the end of a stream without a backend"]
        return []
    expected += pair.script.data
    if not expected.startswith(received):
        at = next(i for i, each in enumerate(received) if expected[i : i + 1] != bytes([each]))
        return [f"{peer.name} has received something else than {pair.name} has sent, at {at}"]
    complete = len(header_of(simulation, peer)) + pair.stream.taken
    if peer.saw_end and not pair.stream.clean:
        return [f"{peer.name} has seen an end of the stream that {pair.name} has not ended"]
    if peer.saw_end and len(received) < complete:
        return [
            f"{peer.name} has seen the end of the stream of {pair.name} after {len(received)}"
            f" of {complete} bytes"
        ]
    return []


def _replaced(simulation: Simulation) -> list[str]:
    """Of two backends that have bytes of one client, one was replaced too late."""
    seen: dict[int, str] = {}
    found = []
    for server in simulation.servers:
        for peer in server.peers:
            rest = peer.received[len(header_of(simulation, peer)) :]
            if not rest or is_part_of_header(simulation, peer):
                continue
            if rest[0] in seen:
                found.append(f"{peer.name} and {seen[rest[0]]} have bytes of the same client")
            seen[rest[0]] = peer.name
    return found


def _total(simulation: Simulation, protocol: str) -> Counters:
    """Of what was reported, and what would be next."""
    total = Counters(dropped={})
    for name, counters in simulation.control.channel.sums.items():
        if name.protocol == protocol:
            total.add(counters)
    told = simulation.worker._count_reports._reported
    for name, port in simulation.context.ports.all.items():
        if name.protocol == protocol:
            total.add(_difference(port.counters, told.get(name)))
    return total


def _miscounted(simulation: Simulation, total: Counters) -> list[str]:
    """Counters are what the kernel has taken, and reports add up to counters. Of a flow
    that is reset, the outcome of its last sends cannot be known."""
    found = []
    network = simulation.machine.network
    headers = sum(
        min(length_of_header(simulation, each.far.owner), each.taken)
        for each in network.sent
        if each.far is not None
    )
    to_backends = sum(each.taken for each in network.sent) - headers
    to_clients = sum(each.taken for each in network.accepted)
    abrupt = sum(peer.error != 0 or not peer.script.gentle for peer in simulation.peers)
    unsure = BUFFER_SIZE * abrupt
    if abs(total.client_bytes - to_backends) > unsure:
        found.append(f"counted {total.client_bytes} bytes to backends of {to_backends}")
    if abs(total.backend_bytes - to_clients) > unsure:
        found.append(f"counted {total.backend_bytes} bytes to clients of {to_clients}")
    accepted = sum(1 for each in network.accepted if each.name[0].isdigit())
    if total.flows != accepted:
        found.append(f"counted {total.flows} flows of {accepted}")
    return found


def _difference(now: Counters, before: Counters | None) -> Counters:
    if before is None:
        return now
    return Counters(
        flows=now.flows - before.flows,
        dial_failures=now.dial_failures - before.dial_failures,
        client_bytes=now.client_bytes - before.client_bytes,
        backend_bytes=now.backend_bytes - before.backend_bytes,
        client_datagrams=now.client_datagrams - before.client_datagrams,
        backend_datagrams=now.backend_datagrams - before.backend_datagrams,
        dropped={},
    )


def _blamed(simulation: Simulation, total: Counters) -> list[str]:
    """No backend is blamed for what this process lacks."""
    services, happened = simulation.scenario.services, simulation.world.happened
    others = [Fault.NO_ROUTE, Fault.OPTION_FAILS, Fault.NO_MEMORY_SEND]
    if simulation.scenario.mode != "udp":
        others.append(Fault.NO_PORT)
    if any(set(service.replies) != {Reply.ACCEPTS} for service in services):
        return []
    if any(happened[fault] for fault in others) or _rough(simulation) or not total.dial_failures:
        return []
    return [f"{total.dial_failures} dials have failed, and no backend has done anything"]


def _hidden(simulation: Simulation) -> list[str]:
    """Only where replies do go astray does the process say so."""
    services = {f"service-{number}" for number in simulation.scenario.astray}
    wrong = [each for each in simulation.control.astray if each.name not in services]
    return [f"replies of {wrong} are said to go astray"] if wrong else []


def _ran_out(simulation: Simulation) -> list[str]:
    """A process that knows how many descriptors it may have does not ask for more."""
    if simulation.world.happened[Fault.NO_DESCRIPTOR]:
        return []
    dropped = [port.counters.dropped for port in simulation.context.ports.all.values()]
    if simulation.machine.descriptors.refused or any("descriptors" in each for each in dropped):
        return ["more descriptors were asked for than there may be"]
    return []


def _rough(simulation: Simulation) -> bool:
    """Whether a backend may have ended a connection before a client could use it."""
    return any(
        not peer.script.gentle
        for server in simulation.servers
        for peer in server.peers
        if peer.pair is None
    )


def _incomplete(simulation: Simulation) -> list[str]:
    """Where no end is in a hurry and nothing is broken, everything arrives."""
    found = []
    rough = _rough(simulation)
    for peer in simulation.peers:
        pair = peer.pair
        if pair is None:
            if peer in simulation.clients and peer.script.gentle and not rough:
                found.append(f"{peer.name} was not served")
            continue
        if not peer.script.gentle or not pair.script.gentle:
            continue
        if not peer.saw_end:
            found.append(f"{peer.name} has not seen the end of the stream of {pair.name}")
        elif len(peer.received) < len(pair.script.data):
            found.append(f"{peer.name} has {len(peer.received)} of {len(pair.script.data)} bytes")
    return found


def flows_of(simulation: Simulation) -> Any:
    for listener in simulation.flows.listeners:
        yield from listener.flows


def _scheduled(simulation: Simulation) -> list[Any]:
    timers = cast("Any", simulation.loop)._scheduled
    return [each for each in timers if not each.cancelled()]


def _is_of_loop(callback: Any) -> bool:
    """Whether a callback of the ring belongs to the loop itself: its timers, and its epoll."""
    name: str = callback.__qualname__
    return name.startswith(("Ring.timeout_at.", "RingSelector."))
