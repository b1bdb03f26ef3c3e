"""A network policy is not taken for replies that do not come back, which would get around it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.dataplane.node_worker import NodeWorker, dropping, node_worker, owner
from tests.dataplane.return_paths import FAMILIES, denies, fails, seen
from tests.netns import kit
from tests.netns.kit import World
from tests.netns.peers import pod
from uproxy.core.protocols import TCP, UDP
from uproxy.net.client_ports import CLIENT_PORTS

pytestmark = kit.needs("nft=nftables")


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
