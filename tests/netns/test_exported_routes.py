"""Addresses that routers learn: two nodes with a routing daemon each, and clients behind a router.

client ── router ── lan ─┬─ node
                         └─ node2
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.netns import kit
from tests.netns.kit import Namespace, Place, namespace
from tests.netns.node import program, service, slices, wait_for, write
from tests.netns.peers import Pod, ask, pod
from tests.netns.test_claims import claimed
from uproxy.core.cluster.load_balancer import ASSIGNED
from uproxy.host import export_routes

pytestmark = kit.needs()

with_bird = pytest.mark.skipif(
    shutil.which("bird", path=kit.PATH) is None, reason="needs bird (Debian: bird2)"
)

VIP, VIP6 = "203.0.113.40", "2001:db8:3::40"
BOTH: Final = {VIP, VIP6}
OPTIONS: Final = ("--lb", "pools", "--lb-pool", "203.0.113.40/29,2001:db8:3::40/124")
ROUTES: Final = (*OPTIONS, "--announce", "routes")
PATIENCE: Final = 40.0
PAGE: Final = Path(__file__).parents[2] / "docs/load-balancer.md"


class Net:
    def __init__(self, client: Namespace, router: Namespace, nodes: Sequence[Place]) -> None:
        self.client, self.router = client, router
        self.node, self.node2 = nodes

    def next_hops(self) -> dict[str, set[str]]:
        """Where the router sends clients, by address."""
        found = {}
        for address, family in ((VIP, "-4"), (VIP6, "-6")):
            text = self.router.run("ip", family, "route", "show", address)
            found[address] = set(re.findall(r"via (\S+)", text))
        return found

    def leads_to(self, *places: Place) -> bool:
        """Whether the router sends clients to exactly these nodes."""
        return self.next_hops() == {
            VIP: {each.ipv4 for each in places},
            VIP6: {each.ipv6 for each in places},
        }


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with ExitStack() as stack:
        client, router, first, second = (
            stack.enter_context(namespace(role)) for role in ("client", "router", "node", "node2")
        )
        router.sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        router.sysctl(ipv4__fib_multipath_hash_policy=1, ipv6__fib_multipath_hash_policy=1)
        router.ip(
            "link add br0 type bridge forward_delay 0",
            "link set br0 up",
            "addr add 192.0.2.254/24 dev br0",
            "addr add 2001:db8:1::fe/64 dev br0 nodad",
        )
        places = [
            Place(space, f"192.0.2.{i}", f"2001:db8:1::{i}")
            for i, space in enumerate((first, second), 1)
        ]
        for place, port in zip(places, ("p1", "p2"), strict=True):
            kit.plug(place.space, router, port, f"{place.ipv4}/24", f"{place.ipv6}/64")
            place.space.ip(
                "route add default via 192.0.2.254", "route add ::/0 via 2001:db8:1::fe dev eth0"
            )
        client.ip(
            f"link add eth0 type veth peer name p0 netns {router.name}",
            "link set eth0 up",
            "addr add 198.51.100.2/30 dev eth0",
            "addr add 2001:db8:2::2/126 dev eth0 nodad",
        )
        router.ip(
            "link set p0 up",
            "addr add 198.51.100.1/30 dev p0",
            "addr add 2001:db8:2::1/126 dev p0 nodad",
        )
        client.ip("route add default via 198.51.100.1", "route add ::/0 via 2001:db8:2::1 dev eth0")
        yield Net(client, router, places)


@pytest.fixture(scope="module")
def backends(net: Net) -> Iterator[list[Pod]]:
    """Pods in the network of each node."""
    with pod("n1", net.node) as first, pod("n2", net.node2) as second:
        yield [first, second]


@contextmanager
def routing_daemon(space: Namespace, directory: Path, text: str) -> Iterator[None]:
    """BIRD, which takes its routes away again when it ends."""
    config = directory / f"{space.role}.conf"
    config.write_text(text)
    with (directory / f"{space.role}-bird.log").open("w") as log:
        words = ["bird", "-f", "-c", str(config), "-s", str(directory / f"{space.role}.ctl")]
        words = space.command(shutil.which(words[0], path=kit.PATH) or "", *words[1:])
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def of_page(place: Place) -> str:
    """The lines of the documentation, for one of the nodes."""
    found = re.search(r"```\n(router id .*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert found is not None
    return found[1].replace("192.0.2.1;", f"{place.ipv4};")


def of_router(*nodes: Place) -> str:
    sessions = "".join(
        f"protocol bgp {{ local as 64512; neighbor {each.ipv4} as 64513; passive yes;"
        " ipv4 { import all; export none; }; ipv6 { import all; export none; }; }\n"
        for each in nodes
    )
    kernel = "".join(
        f"protocol kernel {{ merge paths yes; {each} {{ import none; export all; }}; }}\n"
        for each in ("ipv4", "ipv6")
    )
    return f"router id 192.0.2.254;\nprotocol device {{ }}\n{kernel}{sessions}"


def web(endpoints: Sequence[tuple[Place, str, str]], **spec: Any) -> list[dict[str, Any]]:
    made = service(
        "web",
        type="LoadBalancer",
        clusterIPs=["203.0.113.10", "2001:db8:3::10"],
        ports=[{"name": "t", "port": 80, "protocol": "TCP"}],
        status={"loadBalancer": {"ingress": [{"ip": VIP}, {"ip": VIP6}]}},
        **spec,
    )
    made["metadata"]["annotations"] = {ASSIGNED: f"{VIP},{VIP6}"}
    ports = [{"name": "t", "port": 8080, "protocol": "TCP"}]
    return [made, *slices("web", endpoints, ports=ports)]


def exported(space: Namespace) -> frozenset[str]:
    with space.inside():
        return export_routes.held_exports()


@with_bird
def test_a_router_spreads_clients_over_the_nodes(
    net: Net, backends: list[Pod], manifests: Path, tmp_path: Path
) -> None:
    """And over fewer of them, when the last endpoint of one goes, and when one drains or stops."""
    ready = [(net.node, "n1", "ready"), (net.node2, "n2", "ready")]
    write(manifests, "web.yaml", *web(ready, externalTrafficPolicy="Local"))
    with ExitStack() as stack:
        for each in (net.node, net.node2):
            stack.enter_context(routing_daemon(each.space, tmp_path, of_page(each)))
        router = of_router(net.node, net.node2)
        stack.enter_context(routing_daemon(net.router, tmp_path, router))
        first = stack.enter_context(program(net.node.space, manifests, *ROUTES, name="n1"))
        second = stack.enter_context(program(net.node2.space, manifests, *ROUTES, name="n2"))
        wait_for("both", lambda: net.leads_to(net.node, net.node2), patience=PATIENCE)
        for address in BOTH:
            asked = {ask(net.client, "TCP", address, 80).split()[0] for _ in range(40)}
            assert asked == {"n1", "n2"}, address
        # The last endpoint on a node goes.
        write(manifests, "web.yaml", *web(ready[1:], externalTrafficPolicy="Local"))
        wait_for("one", lambda: net.leads_to(net.node2), patience=PATIENCE)
        for address in BOTH:
            assert {ask(net.client, "TCP", address, 80).split()[0] for _ in range(9)} == {"n2"}
        # No node has to have an endpoint of its own with policy Cluster.
        write(manifests, "web.yaml", *web(ready[1:]))
        wait_for("both", lambda: net.leads_to(net.node, net.node2), patience=PATIENCE)
        # The last endpoint of all.
        write(manifests, "web.yaml", *web([]))
        wait_for("none", net.leads_to, patience=PATIENCE)
        write(manifests, "web.yaml", *web(ready))
        wait_for("both", lambda: net.leads_to(net.node, net.node2), patience=PATIENCE)
        # One stops.
        assert second.stop() == 0
        assert exported(net.node2.space) == set()
        wait_for("one", lambda: net.leads_to(net.node), patience=PATIENCE)
        assert ask(net.client, "TCP", VIP, 80).startswith("n")
        # One is killed: its routes stay, and its successor keeps them.
        first.kill()
        assert net.leads_to(net.node)
        with program(net.node.space, manifests, *ROUTES, name="n1"):
            assert net.leads_to(net.node)
            assert ask(net.client, "TCP", VIP6, 80).startswith("n")


def test_withdrawn_while_it_drains(net: Net, backends: list[Pod], manifests: Path) -> None:
    """Flows go on, and new clients are sent elsewhere."""
    write(manifests, "web.yaml", *web([(net.node, "n1", "ready")]))
    options = (*ROUTES, "--drain-timeout", "60s")
    with program(net.node.space, manifests, *options, name="n1") as uproxy:
        wait_for("export", lambda: exported(net.node.space) == BOTH)
        net.router.ip(f"route replace {VIP} via {net.node.ipv4}")
        with net.client.socket(kit.family_of(VIP), 1) as flow:
            flow.settimeout(15)
            flow.connect((VIP, 80))
            assert flow.recv(100).startswith(b"n1 ")
            uproxy.process.terminate()
            wait_for("withdrawal", lambda: not exported(net.node.space), patience=PATIENCE)
            assert uproxy.process.poll() is None
            flow.sendall(b"still here")
            assert flow.recv(100) == b"still here"
        uproxy.process.wait(60)
        net.router.ip(f"route del {VIP}")


def test_restored_taken_over_and_removed(net: Net, backends: list[Pod], manifests: Path) -> None:
    space = net.node.space
    write(manifests, "web.yaml", *web([(net.node, "n1", "ready")]))
    with program(space, manifests, *ROUTES, name="n1") as uproxy:
        wait_for("export", lambda: exported(space) == BOTH)
        assert claimed(space) >= BOTH
        for family in ("-4", "-6"):
            space.run("ip", family, "route", "flush", "table", "main", "proto", "117")
        wait_for("restored", lambda: exported(space) == BOTH, patience=PATIENCE)
        wait_for("line", lambda: "exports again 2 addresses" in uproxy.log)
        uproxy.kill()
    assert exported(space) == BOTH
    # Its successor finds no endpoint any longer.
    write(manifests, "web.yaml", *web([]))
    with program(space, manifests, *ROUTES, name="n1") as uproxy:
        wait_for("withdrawal", lambda: not exported(space), patience=PATIENCE)
        write(manifests, "web.yaml", *web([(net.node, "n1", "ready")]))
        wait_for("export", lambda: exported(space) == BOTH)
        uproxy.kill()
    space.ip("route add 203.0.113.47/32 dev lo proto 99")
    printed = space.run(sys.executable, "-m", "uproxy.cli", "cleanup")
    assert "exported routes: 2 removed" in printed.splitlines()
    assert exported(space) == set()
    assert "203.0.113.47" in space.run("ip", "route"), "another program's"
    space.ip("route del 203.0.113.47/32 dev lo")


def test_a_route_of_another_program_is_left_alone(
    net: Net, backends: list[Pod], manifests: Path
) -> None:
    space = net.node.space
    space.ip(f"route add {VIP}/32 dev lo proto 99")
    try:
        write(manifests, "web.yaml", *web([(net.node, "n1", "ready")]))
        with program(space, manifests, *ROUTES, name="n1") as uproxy:
            wait_for("export", lambda: exported(space) == {VIP6})
            wait_for("line", lambda: f"{VIP}: the main routing table has a route" in uproxy.log)
            assert uproxy.stop() == 0
        assert f"{VIP} dev lo" in space.run("ip", "route", "show", VIP)
    finally:
        space.ip(f"route del {VIP}/32 dev lo proto 99")


@pytest.mark.parametrize("options", [OPTIONS, (*OPTIONS, "--announce", "never")])
def test_nothing_is_exported_unless_it_is_asked_for(
    net: Net, backends: list[Pod], manifests: Path, options: Sequence[str]
) -> None:
    write(manifests, "web.yaml", *web([(net.node, "n1", "ready")]))
    with program(net.node.space, manifests, *options, name="n1") as uproxy:
        assert uproxy.frontend(f"{VIP}:80/TCP")
        assert exported(net.node.space) == set()
