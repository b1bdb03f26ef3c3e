"""A worker of a node in a network namespace. The test is its control process, and installs what the
kernel needs to bring replies to pods' addresses back."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import socket
from _socket import socket as Socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import msgspec

from tests.dataplane.peers import eventually
from tests.netns import kit
from tests.netns.kit import Namespace, Place, World
from tests.netns.peers import ask
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.dataplane.context import Context
from uproxy.dataplane.engine import choose_engine
from uproxy.dataplane.kernel import LINUX, Kernel
from uproxy.dataplane.worker import Worker
from uproxy.net.channel import Channel
from uproxy.net.listening import open_listeners
from uproxy.net.messages import FromWorker, LocalClients, Open, Report, Settings, ToWorker, Witness

_DIVERT = (
    "table inet divert { chain packets { type filter hook prerouting priority mangle;"
    ' iif != "lo" socket transparent 1 meta mark set 0x75 accept; }; }'
)
PORT = 8080
"""Of backends."""

_SETTINGS = Settings(
    worker=0,
    workers=1,
    max_flows=1000,
    udp_timeout=30.0,
    tcp_idle_timeout=0.0,
    half_close_timeout=0.0,
)


@contextmanager
def pod_network() -> Iterator[World]:
    """Two nodes. Of this one's pods, the last has a link of its own, and the others are behind one
    bridge. Replies to sockets of this node are brought up to it."""
    with kit.world(local=2, remote=2) as made, _linked_pod(made) as place:
        made.local.append(place)
        node = made.node.space
        node.run("nft", _DIVERT)
        for flag, default in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
            node.run(
                "ip", flag, "rule", "add", "priority", "117", "fwmark", "0x75", "lookup", "117"
            )
            node.run("ip", flag, "route", "add", "local", default, "dev", "lo", "table", "117")
        yield made


@contextmanager
def _linked_pod(net: World) -> Iterator[Place]:
    with kit.namespace("linked") as space:
        place = Place(space, "203.0.113.100", "2001:db8:3::100")
        space.ip(f"link add eth0 type veth peer name linked netns {net.node.space.name}")
        net.node.space.ip(
            "link set linked up",
            "addr add fe80::1/64 dev linked nodad",
            f"route add {place.ipv4}/32 dev linked",
            f"route add {place.ipv6}/128 dev linked",
        )
        space.ip(
            "link set eth0 up",
            f"addr add {place.ipv4}/32 dev eth0",
            f"addr add {place.ipv6}/128 dev eth0 nodad",
            "route add 198.51.100.1/32 dev eth0",
            "route add default via 198.51.100.1 dev eth0",
            "route add ::/0 via fe80::1 dev eth0",
        )
        yield place


@contextmanager
def dropping(place: Place, what: str) -> Iterator[None]:
    """The host of a place drops packets, such as "tcp dport 80", before anything looks at them."""
    place.space.run(
        "nft",
        "table inet dropping { chain packets { type filter hook prerouting priority -300;"
        f" {what} drop; }}; }}",
    )
    try:
        yield
    finally:
        place.space.run("nft", "delete table inet dropping")


def owner(protocol: str) -> ServicePortName:
    """The Service port that a `NodeWorker` serves."""
    return ServicePortName("default", "web", "", protocol)


class NodeWorker:
    """Serves one frontend for each protocol and family, at addresses that the node has."""

    def __init__(self, net: World) -> None:
        self.net = net
        ours, theirs = socket.socketpair()
        kind: type[FromWorker] = FromWorker  # type: ignore[assignment]
        other: type[ToWorker] = ToWorker  # type: ignore[assignment]
        self._channel, self._theirs = Channel(ours, kind), Channel(theirs, other)
        self._engine = choose_engine(asyncio.get_running_loop(), _inside(net.node.space))
        context = Context(self._engine.reactor, _SETTINGS, random.random, 10000)
        self.context = context
        self.worker = Worker(self._theirs, context, self._engine)
        self._sockets: list[socket.socket] = []

    def tell(self, **different: Any) -> None:
        """Tell it what the control process knows: pods are here, and the rules are installed."""
        net = self.net
        linked = "203.0.113.100/32", "2001:db8:3::100/128"
        clients = LocalClients(
            (net.node.ipv4, net.node.ipv6, *net.second, "198.51.100.1", "2001:db8:2::1"),
            ("198.51.100.0/24", "2001:db8:2::/63", *linked),
            ("IPv4", "IPv6"),
            ("198.51.100.0/25", "2001:db8:2::/64", *linked),
        )
        self.worker.handle(msgspec.structs.replace(clients, **different), None)

    def serve(self, protocol: str, *places: Place, **different: Any) -> dict[str, Frontend]:
        """Serve a frontend with these backends in each family."""
        found = {}
        for family in ("IPv4", "IPv6"):
            frontend = Frontend(protocol, self.net.node.address(family), 80)
            route = Route(
                frontend=frontend,
                owner=owner(protocol),
                kind=FrontendKind.CLUSTER_IP,
                backends=tuple(Backend(each.address(family), PORT) for each in places),
                preserves_pods=True,
            )
            with self.net.node.space.inside():
                (sock,) = open_listeners(frontend, 1)
            self._sockets.append(sock)
            route = msgspec.structs.replace(route, **different)
            self.worker.handle(Open(route), sock.dup().detach())
            found[family] = frontend
        return found

    async def ask(self, place: Place, protocol: str, family: str, patience: float = 20.0) -> str:
        """What a client there is answered."""
        node = self.net.node.address(family)
        return await asyncio.to_thread(ask, place.space, protocol, node, 80, patience=patience)

    def masqueraded(self, protocol: str) -> int:
        return self.context.ports.get(owner(protocol)).counters.masqueraded

    def report(self) -> list[ServicePortName]:
        """The Service ports that it has found astray since the last call."""
        return [each.port for message in self._reports() for each in message.astray]

    def witnesses(self) -> list[Witness]:
        """Those of paths that were proven since the last call."""
        return [each for message in self._reports() for each in message.witnesses]

    def _reports(self) -> list[Report]:
        self.worker.report()
        messages = [message for message, _ in self._channel.receive()]
        return [each for each in messages if isinstance(each, Report)]

    async def probed(self) -> None:
        """Wait until it has begun a probe, and ended all that it has begun."""
        paths = self.context.return_paths
        await eventually(lambda: bool(paths._not_before) and not paths._probes)

    async def close(self) -> None:
        self.worker.close()
        self._engine.reactor.close()
        self._channel.close()
        self._theirs.close()
        for sock in self._sockets:
            sock.close()
        await asyncio.sleep(0)


def _inside(space: Namespace) -> Kernel:
    """The kernel, as a process in a namespace has it."""

    def new_socket(*arguments: int) -> Socket:
        with space.inside():
            return Socket(*arguments)

    return dataclasses.replace(LINUX, new_socket=cast("type[Socket]", new_socket))


@asynccontextmanager
async def node_worker(net: World, **clients: Any) -> AsyncIterator[NodeWorker]:
    """One that knows of the pods, unless told otherwise."""
    made = NodeWorker(net)
    try:
        made.tell(**clients)
        yield made
    finally:
        await made.close()
