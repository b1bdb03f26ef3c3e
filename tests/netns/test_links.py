"""What netlink says about the routes, interfaces and neighbours of a node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns import kit
from tests.netns.kit import PODS, Namespace, namespace
from uproxy.host.change_monitor import RouteMonitor
from uproxy.host.links import read_pod_networks
from uproxy.host.pod_networks import PodNetworks

pytestmark = kit.needs()

PATIENCE = 15.0


@pytest.fixture
def space() -> Iterator[Namespace]:
    """A node with an uplink, a bridge, and a link to a pod."""
    with namespace("node") as made:
        made.ip(
            "link add eth0 type veth peer name peer0",
            "link add veth1 type veth peer name peer1",
            "link add veth2 type veth peer name peer2",
            "link add cni0 address 02:00:00:00:00:01 type bridge forward_delay 0",
            "link set veth2 master cni0",
            *(f"link set {name} up" for name in ("cni0", "eth0", "veth1", "veth2")),
            *(f"link set {name} up" for name in ("peer0", "peer1", "peer2")),
            "addr add 192.0.2.1/24 dev eth0",
            "addr add 2001:db8:1::1/64 dev eth0 nodad",
            "route add default via 192.0.2.254",
            "route add ::/0 via 2001:db8:1::fe",
        )
        with made.inside():
            yield made


@pytest.mark.parametrize(
    ("lines", "pods"),
    [
        pytest.param((), (), id="none"),
        pytest.param(
            ("addr add 198.51.100.1/25 dev cni0", "addr add 2001:db8:2::1/64 dev cni0 nodad"),
            ("198.51.100.0/25", "2001:db8:2::/64"),
            id="bridge",
        ),
        pytest.param(
            (
                "route add 198.51.100.7/32 dev veth1 scope link",
                "route add 198.51.100.8 dev veth1 scope host",
                "route add 2001:db8:2::7/128 dev veth1",
                "route add blackhole 198.51.100.64/26",
                "route add unreachable 2001:db8:2:1::/64",
            ),
            ("198.51.100.7/32", "198.51.100.8/32", "2001:db8:2::7/128"),
            id="links to pods",
        ),
        pytest.param(
            ("route add 198.51.100.0/25 dev eth0", "route add 2001:db8:2::/64 dev eth0"),
            (),
            id="uplink",
        ),
        pytest.param(
            ("route add 198.51.100.7/32 dev veth1 table 100",), (), id="a table of others"
        ),
        pytest.param(
            (
                "route add 198.51.100.0/28 dev cni0",
                "route add 198.51.100.128/28 via inet6 fe80::1 dev cni0 onlink",
            ),
            (),
            id="an IPv6 gateway of IPv4",
        ),
        pytest.param(
            (
                "route add 198.51.100.0/28 dev cni0",
                "route add 198.51.100.128/28 nexthop via 192.0.2.2 nexthop via 192.0.2.3",
            ),
            ("198.51.100.0/28",),
            id="several paths of others",
        ),
        pytest.param(
            (
                "route add 198.51.100.0/28 dev cni0",
                "route add 203.0.113.0/28 nexthop via 192.0.2.2 nexthop dev cni0 weight 2",
            ),
            (),
            id="several paths",
        ),
        pytest.param(
            (
                "nexthop add id 1 dev cni0",
                "nexthop add id 2 via 192.0.2.2 dev eth0",
                "nexthop add id 3 group 2",
                "route add 198.51.100.0/28 nhid 1",
                "route add 198.51.100.128/28 nhid 2",
                "route add 198.51.100.144/28 nhid 3",
            ),
            ("198.51.100.0/28",),
            id="next hops that are objects of their own",
        ),
        pytest.param(
            (
                "nexthop add id 1 via 198.51.100.9 dev cni0 onlink",
                "nexthop add id 2 dev cni0",
                "nexthop add id 3 group 1",
                "route add 198.51.100.0/28 nhid 2",
                "route add 203.0.113.0/28 nhid 3",
            ),
            (),
            id="a group with a gateway",
        ),
        pytest.param(
            (
                "link add vx0 type vxlan id 7 dstport 4789 dev eth0",
                "link set vx0 up",
                "route add 198.51.100.0/28 dev vx0",
            ),
            (),
            id="tunnel",
        ),
    ],
)
@pytest.mark.parametrize("compatible", [0, 1])
def test_pods(
    space: Namespace, lines: tuple[str, ...], pods: tuple[str, ...], compatible: int
) -> None:
    """With net.ipv4.nexthop_compat_mode=0, a route has only the number of its next hop."""
    space.write_sysctls({"ipv4/nexthop_compat_mode": compatible})
    space.ip(*lines)
    assert read_pod_networks(PODS).pods == pods


def test_the_address_of_a_bridge(space: Namespace) -> None:
    space.ip("addr add 198.51.100.1/25 dev cni0", "route add 198.51.100.128/28 dev veth1")
    bridge, link = read_pod_networks(PODS).segments
    assert (bridge.network, bridge.name) == ("198.51.100.0/25", "cni0")
    assert bridge.bridge_mac == "02:00:00:00:00:01"
    assert (link.network, link.name, link.bridge_mac) == ("198.51.100.128/28", "veth1", "")


def test_without_networks_nothing_is_read(
    space: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uproxy.host.links._read_routes", lambda: 1 / 0)
    assert read_pod_networks(()) == PodNetworks()


@pytest.mark.parametrize(
    "line",
    [
        "route add 198.51.100.9/32 dev veth1",
        "route add 2001:db8:2::9/128 dev veth1",
        "link set cni0 address 02:00:00:00:00:02",
        "link del cni0",
    ],
)
async def test_changes_are_noticed(space: Namespace, line: str) -> None:
    async with RouteMonitor() as monitor:
        while await monitor.wait(0.2):
            pass  # Interfaces that have just been made get link-local addresses.
        space.ip(line)
        assert await monitor.wait(PATIENCE)


async def test_a_flood_of_notices_is_one(space: Namespace) -> None:
    async with RouteMonitor() as monitor:
        batch = [
            f"route add 198.51.{high}.{low}/32 dev veth1"
            for high in range(10)
            for low in range(200)
        ]
        space.ip(*batch)
        assert await monitor.wait(PATIENCE)
        space.ip("route add 203.0.113.9/32 dev veth1")
        assert await monitor.wait(PATIENCE)
