"""Backends see which pod calls, where its packets and the replies come by this node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.dataplane.node_worker import PORT, node_worker, owner
from tests.netns import kit
from tests.netns.kit import Place, World
from tests.netns.peers import pod
from uproxy.core.protocols import TCP, UDP
from uproxy.core.route import Backend
from uproxy.net.client_ports import CLIENT_PORTS

pytestmark = kit.needs("nft=nftables")

FAMILIES = ("IPv4", "IPv6")
PROTOCOLS = (TCP, UDP)


def places(net: World, name: str) -> Place:
    """A pod of this node behind the bridge or with a link of its own, or one of another node."""
    return {"bridge": net.local[0], "link": net.local[2], "elsewhere": net.remote[0]}[name]


@pytest.mark.parametrize(
    ("client", "backend"),
    [("bridge", "elsewhere"), ("link", "elsewhere"), ("bridge", "link"), ("link", "bridge")],
)
async def test_a_backend_sees_which_pod_calls(net: World, client: str, backend: str) -> None:
    place = places(net, client)
    with pod("it", places(net, backend)) as it:
        async with node_worker(net) as made:
            for protocol in PROTOCOLS:
                made.serve(protocol, it.place)
                for family in FAMILIES * 2:
                    answer = await made.ask(place, protocol, family)
                    assert answer == f"it {place.address(family)}"
                assert made.masqueraded(protocol) == 0
        assert len(set(it.seen)) == 8, "each has a port of its own"
        assert all(port in CLIENT_PORTS for _, _, port in it.seen)


_HIDDEN = {
    "switched": ("203.0.113.0/24", "198.51.100.0/25", "2001:db8:2::/64"),
    "astray": tuple(map(owner, PROTOCOLS)),
}


@pytest.mark.parametrize(
    ("case", "clients", "masqueraded"),
    [
        pytest.param("route", {}, 0, id="a route that does not show pods"),
        pytest.param("hairpin", {}, 0, id="the pod itself"),
        pytest.param("hairpin", _HIDDEN, 0, id="the pod itself, where others would be hidden"),
        pytest.param("node", {}, 0, id="a client on the node"),
        pytest.param("elsewhere", {}, 0, id="a pod of another node"),
        pytest.param("", {"preserved": ()}, 0, id="no rules"),
        pytest.param("", {"pods": ()}, 0, id="no pods known"),
        pytest.param("host", {}, 1, id="a backend in the host network"),
        pytest.param("", {"astray": _HIDDEN["astray"]}, 1, id="astray"),
        pytest.param(
            "switched",
            {"switched": _HIDDEN["switched"]},
            1,
            id="behind one bridge that switches",
        ),
    ],
)
async def test_the_node_address(
    net: World, case: str, clients: dict[str, Any], masqueraded: int
) -> None:
    client = {"node": net.node, "elsewhere": net.remote[1]}.get(case, net.local[0])
    backend = {"hairpin": client, "host": net.node, "switched": net.local[1]}.get(
        case, net.remote[0]
    )
    with pod("it", backend):
        async with node_worker(net, **clients) as made:
            for protocol in PROTOCOLS:
                made.serve(protocol, backend, preserves_pods=case != "route")
                for family in FAMILIES:
                    name, seen = (await made.ask(client, protocol, family)).split()
                    assert name == "it"
                    assert made.context.locality.is_here(seen)
                assert made.masqueraded(protocol) == masqueraded * len(FAMILIES)


async def test_a_pod_that_refuses_is_no_reason_to_hide_the_client(net: World) -> None:
    with pod("it", net.remote[0]) as it:
        async with node_worker(net) as made:
            made.serve(TCP, net.remote[1], it.place)
            made.serve(UDP, net.remote[1], it.place)
            for protocol in PROTOCOLS:
                for family in FAMILIES:
                    seen = f"it {net.local[0].address(family)}"
                    for _ in range(2):
                        assert await made.ask(net.local[0], protocol, family) == seen
                assert made.masqueraded(protocol) == 0


@contextmanager
def unreachable(net: World, place: Place, kind: str) -> Iterator[None]:
    """The node has no way to a place: so Calico blackholes the addresses of pods that are gone."""
    for address in (place.ipv4, place.ipv6):
        net.node.space.ip(f"route add {kind} {address}")
    try:
        yield
    finally:
        for address in (place.ipv4, place.ipv6):
            net.node.space.ip(f"route del {kind} {address}")


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
async def test_a_pod_that_cannot_be_reached_is_no_reason_to_hide_the_client(
    net: World, kind: str
) -> None:
    gone, caller = net.remote[1], net.local[0]
    with pod("it", net.remote[0]) as it, unreachable(net, gone, kind):
        async with node_worker(net) as made:
            for protocol in PROTOCOLS:
                made.serve(protocol, gone, it.place)
                for family in FAMILIES:
                    for _ in range(2):
                        answer = await made.ask(caller, protocol, family)
                        assert answer == f"it {caller.address(family)}"
                assert made.masqueraded(protocol) == 0
                assert made.context.ports.get(owner(protocol)).counters.dial_failures > 0


async def test_nor_is_it_to_hide_a_client_from_outside(net: World) -> None:
    gone, family = net.remote[1], "IPv4"
    with pod("it", net.local[0]) as it, unreachable(net, gone, "blackhole"):
        async with node_worker(net) as made:
            for protocol in PROTOCOLS:
                backends = tuple(Backend(each.ipv4, PORT) for each in (gone, it.place))
                made.serve(
                    protocol,
                    gone,
                    it.place,
                    preserves_pods=False,
                    preserves_outside=True,
                    local_backends=backends,
                )
                for _ in range(2):
                    answer = await made.ask(net.client, protocol, family)
                    assert answer == f"it {net.client.ipv4}"
                assert made.masqueraded(protocol) == 0


async def test_a_backend_in_the_host_network_does_not_hide_the_client_from_others(
    net: World,
) -> None:
    """It sees the node's address itself, and refuses here."""
    with pod("it", net.remote[0]) as it:
        async with node_worker(net) as made:
            for protocol in PROTOCOLS:
                made.serve(protocol, net.node, it.place)
                for family in FAMILIES:
                    for _ in range(2):
                        answer = await made.ask(net.local[0], protocol, family)
                        assert answer == f"it {net.local[0].address(family)}"
                assert not made.report(), "it was never asked to reply to a pod"
