"""Replies to pods that do not come back are noticed, and nothing else is taken for that."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from tests.dataplane.node_worker import PORT, dropping, node_worker, owner
from tests.dataplane.peers import eventually
from tests.dataplane.return_paths import ASTRAY, FAMILIES, Resolver, seen
from tests.netns import kit
from tests.netns.kit import World
from tests.netns.peers import pod
from uproxy.core.protocols import TCP, UDP
from uproxy.core.route import Backend

pytestmark = kit.needs("nft=nftables")


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
            assert await made.ask(place, TCP, family) == f"it {place.address(family)}"
            assert made.masqueraded(TCP) == 0
            assert not made.context.return_paths._not_before
        assert seen(it, TCP) == {place.address(family)}


@pytest.mark.parametrize("family", FAMILIES)
async def test_udp_replies_that_begin_to_go_astray(net: World, family: str) -> None:
    """A path that is proven is probed as well."""
    with pod("it", net.remote[0]):
        async with node_worker(net) as made:
            made.serve(UDP, net.remote[0])
            assert (await made.ask(net.local[0], UDP, family)).startswith("it ")
            client = Resolver(made, net.local[1], family)
            with client.sock, dropping(net.node, ASTRAY):
                assert net.local[1].address(family) not in await client.until_answered()
                assert made.report() == [owner(UDP)]


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_path_between_links_says_nothing_about_a_bridge(net: World, family: str) -> None:
    """Nothing brings replies up from the bridge, and those from it to another link come anyway."""
    linked, bridged = net.local[2], net.local[0]
    with pod("it", net.local[1]):
        async with node_worker(net) as made:
            made.serve(TCP, net.local[1])
            assert await made.ask(linked, TCP, family) == f"it {linked.address(family)}"
            answer = await made.ask(bridged, TCP, family)
            assert answer.startswith("it ")
            assert bridged.address(family) not in answer


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
                pod, it = place.address(family), Backend(backend.address(family), PORT)
                await eventually(lambda: made.context.return_paths.is_proven(pod, it))
            assert made.report() == []
            assert made.masqueraded(UDP) == 0
            clients = set()
            try:
                while True:
                    clients.add(sock.recvfrom(100)[1][:2])
            except BlockingIOError:
                assert len(clients) == 1
                assert {address for address, _ in clients} == {place.address(family)}
