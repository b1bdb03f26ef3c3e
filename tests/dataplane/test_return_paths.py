"""Replies to pods that do not come back are noticed, and nothing else is taken for that."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from tests.dataplane.node_worker import NodeWorker, dropping, node_worker, owner
from tests.dataplane.peers import eventually
from tests.netns import kit
from tests.netns.kit import Place, World
from tests.netns.peers import Pod, pod
from uproxy.core.protocols import TCP, UDP
from uproxy.net.client_ports import CLIENT_PORTS

pytestmark = kit.needs("nft=nftables")

FAMILIES = ("IPv4", "IPv6")
ASTRAY = f"meta l4proto {{ tcp, udp }} th dport {CLIENT_PORTS.start}-{CLIENT_PORTS.stop - 1}"
"""Replies to pods' addresses, as a node receives them."""


class Resolver:
    """A client that sends a datagram again if there is no reply, as DNS clients do."""

    def __init__(self, made: NodeWorker, place: Place, family: str) -> None:
        node = made.net.node.address(family)
        self.sock = place.space.socket(kit.family_of(node), socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect((node, 80))

    def answer(self) -> str:
        try:
            return self.sock.recv(1000).decode().strip()
        except BlockingIOError:
            return ""

    async def until_answered(self) -> str:
        """Send every 0.1 s."""
        async with asyncio.timeout(20):
            while True:
                self.sock.send(b"hello")
                await asyncio.sleep(0.1)
                if answer := self.answer():
                    return answer

    async def until(self, made: NodeWorker) -> None:
        """Send every 0.1 s until a probe is over."""
        async with asyncio.timeout(20):
            paths = made.context.return_paths
            while not paths._not_before or paths._probes:
                self.sock.send(b"hello")
                await asyncio.sleep(0.1)


def seen(it: Pod, protocol: str) -> set[str]:
    return {client for kind, client, _ in it.seen if kind == protocol}


@pytest.mark.parametrize("family", FAMILIES)
async def test_tcp_replies_that_go_astray(net: World, family: str) -> None:
    """No flow fails; when the probe has shown why, new ones use the node's address at once."""
    place = net.local[0]
    with pod("it", net.remote[0]):
        async with node_worker(net) as made:
            made.serve(TCP, net.remote[0])
            with dropping(net.node, ASTRAY):
                first = await made.ask(place, TCP, family)
                assert first.startswith("it ")
                assert place.address(family) not in first
                assert made.masqueraded(TCP) == 1
                await made.probed()
                assert made.report() == [owner(TCP)]
                assert made.report() == []
                dials = made.context.ports.get(owner(TCP)).counters.dials
                await made.ask(place, TCP, family)
                assert made.masqueraded(TCP) == 2
                assert made.context.ports.get(owner(TCP)).counters.dials == dials + 1
            # The control process knows, and later wants it to be tried again.
            made.tell(astray=(owner(TCP),))
            assert place.address(family) not in await made.ask(place, TCP, family)
            made.tell()
            assert await made.ask(place, TCP, family) == f"it {place.address(family)}"
            with dropping(net.node, ASTRAY):
                made.tell(preserved=())
                made.tell()
                await made.ask(place, TCP, family)
                await made.probed()
                assert made.report() == [owner(TCP)]


@pytest.mark.parametrize("family", FAMILIES)
async def test_what_begins_to_go_astray(net: World, family: str) -> None:
    """As when another program removes the rules: even then no flow fails."""
    place = net.local[0]
    with pod("it", net.remote[0]):
        async with node_worker(net) as made:
            made.serve(TCP, net.remote[0])
            assert await made.ask(place, TCP, family) == f"it {place.address(family)}"
            with dropping(net.node, ASTRAY):
                answer = await made.ask(place, TCP, family)
            assert answer.startswith("it ")
            assert place.address(family) not in answer
            assert made.report() == [owner(TCP)]


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_dead_backend_is_not_one_whose_replies_go_astray(net: World, family: str) -> None:
    place = net.local[0]
    with (
        pod("it", net.remote[0]),
        dropping(net.remote[1], "meta l4proto { tcp, udp } th dport 8080"),
    ):
        async with node_worker(net) as made:
            made.serve(TCP, net.remote[1])
            assert await made.ask(place, TCP, family) == "reset"
            made.serve(UDP, net.remote[1])
            client = Resolver(made, place, family)
            with client.sock:
                await client.until(made)
            assert made.report() == []
            assert not made.context.return_paths.astray


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_flow_goes_from_a_dead_backend_to_one_that_sees_its_client(
    net: World, family: str
) -> None:
    place = net.local[0]
    with pod("it", net.remote[0]) as it, dropping(net.remote[1], "tcp dport 8080"):
        async with node_worker(net) as made:
            made.serve(TCP, net.remote[1], net.remote[0])
            for _ in range(2):
                assert await made.ask(place, TCP, family) == f"it {place.address(family)}"
            assert made.masqueraded(TCP) == 0
            assert not made.context.return_paths._not_before
        assert seen(it, TCP) == {place.address(family)}


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_network_policy_holds_once_the_backend_has_answered_another_pod(
    net: World, family: str
) -> None:
    """It drops what one pod sends, and the node's address would get around it."""
    allowed, denied = net.local[0], net.local[1]
    version = "ip6" if family == "IPv6" else "ip"
    policy = f"{version} saddr {denied.address(family)}"
    with pod("it", net.remote[0]), dropping(net.remote[0], policy):
        async with node_worker(net) as made:
            made.serve(TCP, net.remote[0])
            assert await made.ask(allowed, TCP, family) == f"it {allowed.address(family)}"
            assert await made.ask(denied, TCP, family) == "reset"
            await made.probed()
            assert await made.ask(allowed, TCP, family) == f"it {allowed.address(family)}"
            assert made.report() == []
            assert made.masqueraded(TCP) == 0


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_worker_that_was_held_up_blames_no_network(net: World, family: str) -> None:
    place = net.local[0]
    with pod("it", net.remote[0]):
        async with node_worker(net) as made:
            made.serve(TCP, net.remote[0])
            counters = made.context.ports.get(owner(TCP)).counters
            async with asyncio.TaskGroup() as tasks:
                asked = tasks.create_task(made.ask(place, TCP, family))
                await eventually(lambda: counters.flows == 1)
                # Longer than the first attempt may take. Its answer waits, as does its timeout.
                time.sleep(0.6)  # noqa: ASYNC251
            assert asked.result() == f"it {place.address(family)}"
            assert made.masqueraded(TCP) == 0
            assert not made.context.return_paths._not_before


@pytest.mark.parametrize("family", FAMILIES)
async def test_udp_replies_that_go_astray(net: World, family: str) -> None:
    """The flow itself goes on, and those of other clients, which wait for the same probe."""
    with pod("it", net.remote[0]) as it:
        async with node_worker(net) as made:
            made.serve(UDP, net.remote[0])
            clients = [Resolver(made, place, family) for place in net.local[:2]]
            with dropping(net.node, ASTRAY):
                async with asyncio.TaskGroup() as tasks:
                    waiting = [tasks.create_task(each.until_answered()) for each in clients]
                answers = {each.result() for each in waiting}
                assert all(answer.startswith("it ") for answer in answers)
                assert made.report() == [owner(UDP)]
                assert made.masqueraded(UDP) == 2
                assert made.context.active == 2
                assert await made.ask(net.local[0], UDP, family) in answers
            for each in clients:
                each.sock.close()
        assert {place.address(family) for place in net.local[:2]} < seen(it, UDP)


@pytest.mark.parametrize("family", FAMILIES)
async def test_replies_that_a_bridge_delivers_to_the_pod_itself(net: World, family: str) -> None:
    """Nothing brings them up here. The pod knows nothing of the connection and resets it, which the
    backend takes for the client's end."""
    place = net.local[0]
    with pod("it", net.local[1]):
        async with node_worker(net) as made:
            made.serve(TCP, net.local[1])
            answer = await made.ask(place, TCP, family)
            assert answer.startswith("it ")
            assert place.address(family) not in answer
            await made.probed()
            assert made.report() == [owner(TCP)]
            # The backend has not answered the pod, whatever protocol the probe was for.
            made.serve(UDP, net.local[1])
            client = Resolver(made, place, family)
            with client.sock:
                assert place.address(family) not in await client.until_answered()
            assert made.report() == [owner(UDP)]


@pytest.mark.parametrize("family", FAMILIES)
async def test_what_a_udp_client_sent_last_gets_an_answer_without_being_sent_again(
    net: World, family: str
) -> None:
    """A DNS client may send no more than twice."""
    with pod("it", net.remote[0]):
        async with node_worker(net) as made:
            made.serve(UDP, net.remote[0])
            client = Resolver(made, net.local[0], family)
            with client.sock, dropping(net.node, ASTRAY):
                client.sock.send(b"first")
                began = time.monotonic()
                await eventually(lambda: time.monotonic() - began >= 1.05)
                client.sock.send(b"second")
                await eventually(lambda: client.answer().startswith("it "))


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_udp_service_without_replies_keeps_its_flow(net: World, family: str) -> None:
    """As syslog: it is alive, since it refuses TCP, and has nothing to say."""
    place, backend = net.local[0], net.remote[0]
    with backend.space.socket(kit.family_of(backend.address(family)), socket.SOCK_DGRAM) as sock:
        sock.bind((backend.address(family), 8080))
        sock.setblocking(False)
        async with node_worker(net) as made:
            made.serve(UDP, backend)
            client = Resolver(made, place, family)
            with client.sock:
                await client.until(made)
                for _ in range(10):
                    client.sock.send(b"more")
                await eventually(lambda: made.context.return_paths._answered != {})
            assert made.report() == []
            assert made.masqueraded(UDP) == 0
            clients = set()
            try:
                while True:
                    clients.add(sock.recvfrom(100)[1][:2])
            except BlockingIOError:
                assert len(clients) == 1
                assert {address for address, _ in clients} == {place.address(family)}
