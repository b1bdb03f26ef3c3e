"""What must hold for datagrams: they may be lost, but nothing else may happen to them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

from tests.simulation.udp_peers import UdpClient, UdpServer
from tests.simulation.world import Violation
from uproxy.core.flows.counters import Counters
from uproxy.dataplane.udp.flow import CONVERSATION, KEPT, KEPT_BYTES, UdpFlow
from uproxy.dataplane.udp.flow_backend import ATTEMPTS
from uproxy.dataplane.udp.listener import UdpListener

if TYPE_CHECKING:
    from tests.simulation.datagrams import DatagramSocket
    from tests.simulation.simulation import Simulation
    from tests.simulation.sockets import Socket

UNKNOWN = 255
"""Stands for the client of a datagram that is too short to say whose it is."""
NAMED = 4
"""Bytes that a datagram needs to say whose it is."""


def flows_are_in_a_state(simulation: Simulation) -> None:
    """What UdpFlow's docstring says of its states, whenever the process is about to wait."""
    listeners = simulation.worker._listeners.values()
    listed = {
        id(flow): flow
        for listener in listeners
        if isinstance(listener, UdpListener)
        for flow in listener.flows.values()
    }
    table = simulation.worker._udp.table
    if listed.keys() != {id(flow) for flow in table}:
        raise Violation("listeners have other flows than the worker")
    if len(listed) != simulation.context.capacity.udp:
        raise Violation(f"{len(listed)} UDP flows, and {simulation.context.capacity.udp} counted")
    for flow in listed.values():
        if wrong := _wrong_state(flow):
            raise Violation(f"a UDP flow to {flow.backend} {wrong}")


def _wrong_state(flow: UdpFlow) -> str:
    if flow._sock is None or flow._sock.fileno() < 0:
        return "has no socket"
    if cast("DatagramSocket", cast("Socket", flow._sock).file).remote != flow.backend:
        return "has a socket towards another backend"
    if flow._confirmed and (flow._kept or flow._tried):
        return "keeps what its backend has replied to"
    if flow._confirmed and not flow.answered:
        return "was not answered, and its backend has replied"
    if len(flow._kept) > KEPT or sum(map(len, flow._kept)) > KEPT_BYTES:
        return "keeps too much"
    if len(flow._tried) >= ATTEMPTS:
        return "has tried enough backends"
    if flow._inspecting != (not flow._confirmed or flow._sent_after_reply < CONVERSATION):
        return "inspects datagrams without need, or not where it should"
    return ""


def violations(simulation: Simulation, total: Counters) -> list[str]:
    """`total` is the sum of all counters."""
    found: list[str] = []
    for client in simulation.udp_clients:
        found += _of_client(simulation, client)
    for server in simulation.udp_servers:
        found += _of_server(simulation, server)
    found += _miscounted(simulation, total)
    found += _overtaken(simulation)
    if simulation.scenario.gentle and not simulation.world.happened:
        found += _incomplete(simulation)
        found += _moved(simulation)
    return found


def _of_client(simulation: Simulation, client: UdpClient) -> list[str]:
    """A client gets replies to its own datagrams only, from the address that it has sent to, and
    each once."""
    replies = Counter(data for server in simulation.udp_servers for data in server.sent)
    for data, source in client.received:
        if source != client.target:
            return [f"{client.name} has a reply from {source}, and has asked {client.target}"]
        if len(data) >= NAMED and data[1] not in (client.number, UNKNOWN):
            return [f"{client.name} has a reply to client {data[1]}"]
        if not replies[data]:
            return [f"{client.name} has a reply that no backend has sent, or twice"]
        replies[data] -= 1
    return []


def _of_server(simulation: Simulation, server: UdpServer) -> list[str]:
    """A server gets what clients have sent: each client through sockets of its own, and through
    each socket every datagram once."""
    sent = {data for client in simulation.udp_clients for data in client.sent}
    seen: Counter[tuple[bytes, object]] = Counter()
    clients: dict[object, int] = {}
    for data, source in server.received:
        if data not in sent:
            return [f"{server.address} has received a datagram that no client has sent"]
        if len(data) < NAMED:
            continue
        seen[data, source] += 1
        if seen[data, source] > 1:
            return [f"{server.address} has received a datagram twice"]
        if clients.setdefault(source, data[1]) != data[1]:
            return [f"{server.address} hears two clients from one port"]
    return []


def _miscounted(simulation: Simulation, total: Counters) -> list[str]:
    """Datagrams are counted if the kernel has taken them. Those that a flow has kept are sent again
    when a backend refuses, as is the last one when replies go astray, and counted once."""
    sockets = simulation.machine.network.opened
    back = [each for each in sockets if not each.dialed]
    forth = [each for each in sockets if each.dialed]
    taken, taken_bytes = sum(each.taken for each in forth), sum(each.taken_bytes for each in forth)
    counted, counted_bytes = total.client_datagrams, total.client_bytes
    found = []
    if counted > taken or counted_bytes > taken_bytes:
        found.append(f"counted {counted} datagrams to backends of {taken}")
    again = simulation.machine.network.refused or simulation.scenario.astray
    if not again and (counted, counted_bytes) != (taken, taken_bytes):
        found.append(f"counted {counted} datagrams to backends of {taken}, and no backend refuses")
    taken, taken_bytes = sum(each.taken for each in back), sum(each.taken_bytes for each in back)
    if (total.backend_datagrams, total.backend_bytes) != (taken, taken_bytes):
        found.append(f"counted {total.backend_datagrams} datagrams to clients of {taken}")
    return found


def _overtaken(simulation: Simulation) -> list[str]:
    """What one sender has sent to one socket leaves in that order. Backends that refuse, and paths
    whose MTU becomes smaller, are exceptions: what was refused is sent again."""
    network, scenario = simulation.machine.network, simulation.scenario
    if network.refused or scenario.astray or scenario.narrows:
        return []
    left = {data: place for place, data in enumerate(network.went) if len(data) >= NAMED}
    latest: dict[object, int] = {}
    for socket, source, data in network.came:
        place = left.get(data)
        if place is None:
            continue
        if place < latest.get((socket, source), -1):
            return [f"a datagram from {source} has overtaken another one"]
        latest[socket, source] = place
    return []


def _moved(simulation: Simulation) -> list[str]:
    """A client in a conversation keeps its backend and its flow, however many others come."""
    for client in simulation.udp_clients:
        if not client.keeps:
            continue
        sources = {
            source
            for server in simulation.udp_servers
            for data, source in server.received
            if len(data) >= NAMED and data[1] == client.number
        }
        if len(sources) != 1:
            return [f"{client.name} did not keep its flow: backends know it by {sources}"]
    return []


def _incomplete(simulation: Simulation) -> list[str]:
    """Where nothing goes wrong, every datagram arrives."""
    sent = sum(len(client.sent) - client.lost for client in simulation.udp_clients)
    received = sum(len(server.received) for server in simulation.udp_servers)
    found = []
    if received < sent:
        found.append(f"backends have {received} of {sent} datagrams")
    sent = sum(len(server.sent) - server.lost for server in simulation.udp_servers)
    received = sum(len(client.received) for client in simulation.udp_clients)
    if received < sent:
        found.append(f"clients have {received} of {sent} replies")
    return found
