"""Replies to pods that do not come back are noticed, and nothing else is taken for that."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import itertools
import socket
import time
from _socket import socket as Socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from tests.dataplane.node_worker import PORT, NodeWorker, dropping, node_worker, owner
from tests.dataplane.peers import eventually
from tests.netns import kit
from tests.netns.kit import Place, World
from tests.netns.peers import Pod, pod
from uproxy.core.protocols import TCP, UDP
from uproxy.core.route import Backend
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


def denies(place: Place, family: str) -> str:
    """What a network policy drops."""
    return f"{'ip6' if family == 'IPv6' else 'ip'} saddr {place.address(family)}"


async def fails(made: NodeWorker, place: Place, protocol: str, family: str) -> None:
    """What a client there sends is not answered, also after a probe has found out why."""
    if protocol == TCP:
        assert await made.ask(place, TCP, family) == "reset"
        await made.probed()
        return
    client = Resolver(made, place, family)
    with client.sock:
        await client.until(made)
        assert client.answer() == ""


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
    with pod("it", net.remote[0]), dropping(net.remote[0], denies(denied, family)):
        async with node_worker(net) as made:
            made.serve(TCP, net.remote[0])
            assert await made.ask(allowed, TCP, family) == f"it {allowed.address(family)}"
            assert await made.ask(denied, TCP, family) == "reset"
            await made.probed()
            assert await made.ask(allowed, TCP, family) == f"it {allowed.address(family)}"
            assert made.report() == []
            assert made.masqueraded(TCP) == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", [TCP, UDP])
async def test_a_network_policy_holds_once_another_service_has_answered_another_pod(
    net: World, family: str, protocol: str
) -> None:
    """What proves that replies come back is the path, so no backend has to be proven by itself."""
    allowed, denied, backend = net.local[0], net.local[1], net.remote[1]
    other = UDP if protocol == TCP else TCP
    with (
        pod("it", net.remote[0]),
        pod("guarded", backend) as guarded,
        dropping(backend, denies(denied, family)),
    ):
        async with node_worker(net) as made:
            made.serve(other, net.remote[0])
            made.serve(protocol, backend)
            assert await made.ask(allowed, other, family) == f"it {allowed.address(family)}"
            await fails(made, denied, protocol, family)
            assert made.report() == []
            assert made.masqueraded(protocol) == 0
        assert seen(guarded, protocol) <= {allowed.address(family)}


@contextmanager
def used_up(made: NodeWorker, protocol: str, address: str) -> Iterator[None]:
    """Other flows of this pod have all of its ports."""
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    made.context.pod_ports._ports = CLIENT_PORTS[:1]
    with made.net.node.space.socket(kit.family_of(address), kind) as taken:
        # Of either kind, no other socket may share the port.
        assert made.context.pod_ports.bind_datagram(taken, address, address)
        yield


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", [TCP, UDP])
async def test_a_pod_that_has_used_up_its_ports_does_not_get_around_a_network_policy(
    net: World, family: str, protocol: str
) -> None:
    """A denied pod can take all of them, with flows to a Service that lets it in."""
    allowed, denied, backend = net.local[0], net.local[1], net.remote[1]
    other = UDP if protocol == TCP else TCP
    with (
        pod("it", net.remote[0]),
        pod("guarded", backend) as guarded,
        dropping(backend, denies(denied, family)),
    ):
        async with node_worker(net) as made:
            made.serve(other, net.remote[0])
            made.serve(protocol, backend)
            await made.ask(allowed, other, family)
            with used_up(made, protocol, denied.address(family)):
                answer = await made.ask(denied, protocol, family, patience=5.0)
            assert not answer.startswith("guarded")
            assert made.context.ports.get(owner(protocol)).counters.dropped
            assert made.masqueraded(protocol) == 0
        assert seen(guarded, protocol) == set()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", [TCP, UDP])
async def test_a_pod_that_has_used_up_its_ports_goes_on_where_it_was_answered(
    net: World, family: str, protocol: str
) -> None:
    place = net.local[0]
    with pod("it", net.remote[0]):
        async with node_worker(net) as made:
            made.serve(protocol, net.remote[0])
            await made.ask(place, protocol, family)
            with used_up(made, protocol, place.address(family)):
                answer = await made.ask(place, protocol, family)
            assert answer.startswith("it ")
            assert place.address(family) not in answer
            assert made.masqueraded(protocol) == 1


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_network_policy_holds_once_another_worker_has_seen_a_reply(
    net: World, family: str
) -> None:
    allowed, denied = net.local[0], net.local[1]
    with (
        pod("it", net.remote[0]),
        pod("guarded", net.remote[1]),
        dropping(net.remote[1], denies(denied, family)),
    ):
        async with node_worker(net) as first:
            first.serve(TCP, net.remote[0])
            await first.ask(allowed, TCP, family)
            witnesses = first.witnesses()
            assert [each.pod for each in witnesses] == [allowed.address(family)]
            assert first.witnesses() == []
        async with node_worker(net, witnesses=tuple(witnesses)) as made:
            made.serve(TCP, net.remote[1])
            await fails(made, denied, TCP, family)
            assert made.report() == []
            assert made.masqueraded(TCP) == 0


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_pod_that_a_policy_begins_to_deny_does_not_break_the_path(
    net: World, family: str
) -> None:
    """It was the latest witness itself. The one before still is one."""
    allowed, denied = net.local[0], net.local[1]
    with pod("it", net.remote[0]), pod("guarded", net.remote[1]):
        async with node_worker(net) as made:
            made.serve(UDP, net.remote[0])
            made.serve(TCP, net.remote[1])
            await made.ask(allowed, UDP, family)
            await made.ask(denied, TCP, family)
            with dropping(net.remote[1], denies(denied, family)):
                await fails(made, denied, TCP, family)
                assert made.report() == []
                assert made.masqueraded(TCP) == 0


@pytest.mark.parametrize("family", FAMILIES)
async def test_witnesses_that_are_dead_say_nothing(net: World, family: str) -> None:
    """Without one, replies that go astray are noticed as on a path that was never proven."""
    place = net.local[0]
    with pod("it", net.remote[0]), pod("old", net.remote[1]):
        async with node_worker(net) as made:
            made.serve(UDP, net.remote[1])
            made.serve(TCP, net.remote[0])
            await made.ask(place, UDP, family)
            (old,) = made.witnesses()
            made.tell(witnesses=(old,))
            gone = "meta l4proto { tcp, udp } th dport 8080"
            with dropping(net.remote[1], gone), dropping(net.node, ASTRAY):
                for found in [], [owner(TCP)]:
                    answer = await made.ask(place, TCP, family)
                    assert answer.startswith("it ")
                    assert place.address(family) not in answer
                    await made.probed()
                    assert made.report() == found
                    # The next probe need not wait.
                    made.context.return_paths._not_before.clear()


@pytest.mark.parametrize("number", range(1, 7))
async def test_a_probe_for_which_there_are_too_few_descriptors_ends_without_a_verdict(
    net: World, number: int
) -> None:
    """Whichever of its sockets cannot be opened."""
    allowed, denied = net.local[0], net.local[1]
    with pod("it", net.remote[0]), pod("dead", net.remote[1]):
        async with node_worker(net) as made:
            reactor, paths = made.context.reactor, made.context.return_paths
            made.serve(UDP, net.remote[0])
            made.serve(TCP, net.remote[1])
            await made.ask(allowed, UDP, "IPv4")
            await made.ask(allowed, TCP, "IPv4")
            with dropping(net.remote[1], "tcp dport 8080"):
                kernel, opened = reactor.kernel, itertools.count(1)

                def new_socket(*arguments: int) -> Socket:
                    if next(opened) == number:
                        raise OSError(errno.EMFILE, "too many open files")
                    return kernel.new_socket(*arguments)

                reactor.kernel = dataclasses.replace(
                    kernel, new_socket=cast("type[Socket]", new_socket)
                )
                backend = Backend(net.remote[1].ipv4, PORT)
                paths.probe(owner(TCP), backend, denied.ipv4)
                await made.probed()
            assert next(opened) > number
            assert reactor.failures == 0
            assert made.report() == []
            assert paths.is_proven(denied.ipv4, backend)


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_witness_whose_pod_is_gone_says_nothing(net: World, family: str) -> None:
    """Policies no longer let its address in, so that its backend answers only the node."""
    gone, denied = net.local[0], net.local[1]
    with pod("it", net.remote[0]), pod("guarded", net.remote[1]):
        async with node_worker(net) as made:
            made.serve(UDP, net.remote[0])
            made.serve(TCP, net.remote[1])
            await made.ask(gone, UDP, family)
            (old,) = made.witnesses()
            with (
                dropping(gone, "meta l4proto tcp"),
                dropping(net.remote[0], denies(gone, family)),
                dropping(net.remote[1], denies(denied, family)),
            ):
                await made.ask(denied, TCP, family)
                await made.probed()
            assert made.report() == []
            assert not made.context.return_paths.is_proven(old.pod, old.backend)


@pytest.mark.parametrize("family", FAMILIES)
async def test_what_was_found_without_a_witness_is_lifted_by_the_first_one(
    net: World, family: str
) -> None:
    allowed, denied = net.local[0], net.local[1]
    with (
        pod("it", net.remote[0]),
        pod("guarded", net.remote[1]),
        dropping(net.remote[1], denies(denied, family)),
    ):
        async with node_worker(net) as made:
            made.serve(TCP, net.remote[1])
            made.serve(UDP, net.remote[0])
            answer = await made.ask(denied, TCP, family)
            assert answer.startswith("guarded ")
            await made.probed()
            assert made.context.return_paths.astray == {owner(TCP)}
            await made.ask(allowed, UDP, family)
            assert made.context.return_paths.astray == set()
            assert made.report() == []
            await fails(made, denied, TCP, family)


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
