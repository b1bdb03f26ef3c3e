"""Backends see which pod calls, where its packets and the replies come by this node."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dataplane.node_worker import node_worker, owner
from tests.netns import kit
from tests.netns.kit import Place, World
from tests.netns.peers import pod
from uproxy.core.protocols import TCP, UDP
from uproxy.net.client_ports import CLIENT_PORTS

pytestmark = kit.needs("nft=nftables")

FAMILIES = ("IPv4", "IPv6")
PROTOCOLS = (TCP, UDP)


def places(net: World, name: str) -> Place:
    """A pod of this node behind the bridge or with a link of its own, or one of another node."""
    return {"bridge": net.local[0], "link": net.local[2], "elsewhere": net.remote[0]}[name]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("client", "backend"),
    [("bridge", "elsewhere"), ("link", "elsewhere"), ("bridge", "link"), ("link", "bridge")],
)
async def test_a_backend_sees_which_pod_calls(
    net: World, client: str, backend: str, family: str, protocol: str
) -> None:
    place = places(net, client)
    with pod("it", places(net, backend)) as it:
        async with node_worker(net) as made:
            made.serve(protocol, it.place)
            for _ in range(3):
                assert await made.ask(place, protocol, family) == f"it {place.address(family)}"
            assert made.masqueraded(protocol) == 0
        ports = {port for _, _, port in it.seen}
        assert len(ports) == 3
        assert all(port in CLIENT_PORTS for port in ports)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("case", "clients", "masqueraded"),
    [
        pytest.param("route", {}, 0, id="a route that does not show pods"),
        pytest.param("hairpin", {}, 0, id="the pod itself"),
        pytest.param("node", {}, 0, id="a client on the node"),
        pytest.param("elsewhere", {}, 0, id="a pod of another node"),
        pytest.param("", {"preserved": ()}, 0, id="no rules"),
        pytest.param("", {"pods": ()}, 0, id="no pods known"),
        pytest.param("host", {}, 1, id="a backend in the host network"),
        pytest.param("", {"astray": tuple(map(owner, PROTOCOLS))}, 1, id="astray"),
        pytest.param(
            "switched",
            {"switched": ("203.0.113.0/24", "198.51.100.0/25", "2001:db8:2::/64")},
            1,
            id="behind one bridge that switches",
        ),
    ],
)
async def test_the_node_address(
    net: World, case: str, clients: dict[str, Any], masqueraded: int, family: str, protocol: str
) -> None:
    client = {"node": net.node, "elsewhere": net.remote[1]}.get(case, net.local[0])
    backend = {"hairpin": client, "host": net.node, "switched": net.local[1]}.get(
        case, net.remote[0]
    )
    with pod("it", backend):
        async with node_worker(net, **clients) as made:
            made.serve(protocol, backend, preserves_pods=case != "route")
            answer = await made.ask(client, protocol, family)
            assert answer.startswith("it ")
            here = (*net.second, net.node.ipv4, net.node.ipv6, "198.51.100.1", "2001:db8:2::1")
            assert answer.split()[1] in here
            assert made.masqueraded(protocol) == masqueraded


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
