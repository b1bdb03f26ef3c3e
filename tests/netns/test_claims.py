"""Addresses that no interface has: claimed, kept through a crash, released, or refused."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns import kit
from tests.netns.kit import Namespace, World
from tests.netns.node import Node, program, service, slices, wait_for, write
from tests.netns.peers import REFUSED, UNREACHABLE, Pod, ask, pod
from uproxy.host import claim_routes, our_routes
from uproxy.host.netlink import OUR_PROTOCOL

pytestmark = kit.needs("setpriv=util-linux")

CLUSTER_IP, CLUSTER_IP6 = "203.0.113.10", "2001:db8:3::10"
LB_IP, LB_IP6 = "203.0.113.20", "2001:db8:3::20"
LEFT_OVER = "local 203.0.113.60 dev lo table local proto 117"
PORT_OF_SECOND = [{"name": "t", "port": 80, "protocol": "TCP", "nodePort": 30090}]
OF_WEB = {CLUSTER_IP, CLUSTER_IP6, LB_IP, LB_IP6}


@pytest.fixture(scope="module")
def backend(net: World) -> Iterator[Pod]:
    with pod("a", net.local[0]) as running:
        yield running


def web(net: World, name: str = "web", **spec: Any) -> list[dict[str, Any]]:
    """A Service of both families, TCP and UDP on port 80, and its endpoint."""
    fields: dict[str, Any] = {
        "type": "LoadBalancer",
        "clusterIPs": [CLUSTER_IP, CLUSTER_IP6],
        "ports": [
            {"name": "t", "port": 80, "protocol": "TCP"},
            {"name": "u", "port": 80, "protocol": "UDP"},
        ],
        "status": {"loadBalancer": {"ingress": [{"ip": LB_IP}, {"ip": LB_IP6, "ipMode": "VIP"}]}},
        **spec,
    }
    return [service(name, **fields), *slices(name, [(net.local[0], "here", "ready")])]


def claimed(space: Namespace) -> set[str]:
    """What the kernel says, by the word of ip(8)."""
    words = ("route", "show", "table", "local", "proto", str(OUR_PROTOCOL))
    lines = space.run("ip", *words) + space.run("ip", "-6", *words)
    return {line.split()[1] for line in lines.splitlines()}


def test_claimed_served_and_released(net: World, backend: Pod, manifests: Path) -> None:
    write(manifests, "web.yaml", *web(net))
    with program(net.node.space, manifests) as uproxy:
        assert claimed(net.node.space) == OF_WEB
        for address in OF_WEB:
            for protocol in ("TCP", "UDP"):
                for place in (net.client, net.node, net.local[1]):
                    answer = ask(place.space, protocol, address, 80)
                    assert answer.startswith("a "), (address, protocol, place)
        with pytest.raises(AssertionError, match="addresses of this node; stop it first"):
            net.node.space.run(sys.executable, "-m", "uproxy.cli", "cleanup")
        # Without the load balancer, only its addresses go.
        write(manifests, "web.yaml", *web(net, status={}))
        wait_for("release", lambda: claimed(net.node.space) == {CLUSTER_IP, CLUSTER_IP6})
        write(manifests, "web.yaml", *web(net))
        wait_for("claim", lambda: claimed(net.node.space) == OF_WEB)
        assert uproxy.stop() == 0
    assert claimed(net.node.space) == set()


def test_a_closed_terminal_leaves_no_claim(net: World, backend: Pod, manifests: Path) -> None:
    write(manifests, "web.yaml", *web(net))
    with program(net.node.space, manifests) as uproxy:
        assert claimed(net.node.space) == OF_WEB
        uproxy.process.send_signal(signal.SIGHUP)
        uproxy.process.wait(20)
        assert claimed(net.node.space) == set()
        assert uproxy.process.returncode == 0


def test_one_address_for_two_services(net: World, backend: Pod, manifests: Path) -> None:
    """It is released with the last of them."""
    shared = {"loadBalancer": {"ingress": [{"ip": LB_IP}]}}
    ports = [{"name": "t", "port": 81, "protocol": "TCP"}]
    write(manifests, "one.yaml", *web(net, "one", clusterIPs=["203.0.113.11"], status=shared))
    two = web(net, "two", clusterIPs=["203.0.113.12"], status=shared, ports=ports)
    write(manifests, "two.yaml", *two)
    with program(net.node.space, manifests):
        assert claimed(net.node.space) == {"203.0.113.11", "203.0.113.12", LB_IP}
        (manifests / "one.yaml").unlink()
        wait_for("release", lambda: claimed(net.node.space) == {"203.0.113.12", LB_IP})
        assert ask(net.client.space, "TCP", LB_IP, 81).startswith("a ")
        assert ask(net.client.space, "TCP", LB_IP, 80) == REFUSED
        (manifests / "two.yaml").unlink()
        wait_for("release", lambda: claimed(net.node.space) == set())


def test_after_a_kill_the_next_one_takes_over(net: World, backend: Pod, manifests: Path) -> None:
    write(manifests, "web.yaml", *web(net))
    write(manifests, "old.yaml", *web(net, "old", clusterIPs=["203.0.113.40"], status={}))
    with program(net.node.space, manifests) as uproxy:
        workers = uproxy.worker_pids()
        uproxy.kill()
        wait_for("end of workers", lambda: not any(map(_alive, workers)))
    assert claimed(net.node.space) == OF_WEB | {"203.0.113.40"}
    (manifests / "old.yaml").unlink()
    with program(net.node.space, manifests) as uproxy:
        wait_for("release", lambda: claimed(net.node.space) == OF_WEB)
        assert "released 203.0.113.40" in uproxy.log
        assert "claimed 4" not in uproxy.log
        assert ask(net.client.space, "TCP", LB_IP6, 80).startswith("a ")
        uproxy.kill()
    foreign = "local 203.0.113.50 dev lo table local proto 99"
    net.node.space.ip(f"route add {foreign}")
    printed = net.node.space.run(sys.executable, "-m", "uproxy.cli", "cleanup")
    assert "claimed addresses: 4 removed" in printed.splitlines()
    assert claimed(net.node.space) == set()
    assert "203.0.113.50" in net.node.space.run("ip", "route", "show", "table", "local")
    net.node.space.ip(f"route del {foreign}")


def test_never(net: World, backend: Pod, manifests: Path) -> None:
    """Not even what another run has claimed is touched."""
    net.node.space.ip(f"route add {LEFT_OVER}")
    write(manifests, "web.yaml", *web(net, externalIPs=[net.second[0]]))
    with program(net.node.space, manifests, "--claim-addresses", "never") as uproxy:
        assert ask(net.client.space, "TCP", net.second[0], 80).startswith("a ")
        reason = f"address {LB_IP} is not on this node, and --claim-addresses is never"
        assert state_and_reason(uproxy, LB_IP) == ("elsewhere", reason)
        uproxy.stop()
    assert claimed(net.node.space) == {"203.0.113.60"}
    net.node.space.ip(f"route del {LEFT_OVER}")


def test_without_the_capability(net: World, backend: Pod, manifests: Path) -> None:
    """What can be bound is served, and the rest has a reason."""
    write(manifests, "web.yaml", *web(net, externalIPs=[net.second[0]]))
    without = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    with program(net.node.space, manifests, wrapper=without) as uproxy:
        assert claimed(net.node.space) == set()
        assert ask(net.client.space, "TCP", net.second[0], 80).startswith("a ")
        reason = f"address {LB_IP} is not on this node, and claiming it needs CAP_NET_ADMIN"
        assert state_and_reason(uproxy, LB_IP) == ("elsewhere", reason)
        net.node.space.ip(f"route add {LEFT_OVER}")
        with pytest.raises(AssertionError, match="without CAP_NET_ADMIN; run this command as root"):
            net.node.space.run(*without, sys.executable, "-m", "uproxy.cli", "cleanup")
        net.node.space.ip(f"route del {LEFT_OVER}")


def test_an_interface_gets_and_loses_the_address(net: World, backend: Pod, manifests: Path) -> None:
    """Claimed exactly as long as no interface has it, and served all the time."""
    write(manifests, "web.yaml", *web(net, clusterIPs=[CLUSTER_IP], status={}))
    with program(net.node.space, manifests):
        assert claimed(net.node.space) == {CLUSTER_IP}
        net.node.space.ip(f"addr add {CLUSTER_IP}/32 dev eth0")
        try:
            wait_for("the address", lambda: ask(net.client.space, "TCP", CLUSTER_IP, 80))
            assert ask(net.client.space, "TCP", CLUSTER_IP, 80).startswith("a ")
        finally:
            net.node.space.ip(f"addr del {CLUSTER_IP}/32 dev eth0")
        wait_for("claim", lambda: claimed(net.node.space) == {CLUSTER_IP})
        assert ask(net.client.space, "TCP", CLUSTER_IP, 80).startswith("a ")


def test_an_address_that_another_program_removes_is_claimed_again(
    net: World, backend: Pod, manifests: Path
) -> None:
    """Within 15 s, for both families, and nothing has to happen in the cluster for that."""
    write(manifests, "web.yaml", *web(net))
    with program(net.node.space, manifests) as uproxy:
        words = ("table", "local", "proto", str(OUR_PROTOCOL))
        net.node.space.run("ip", "-4", "route", "flush", *words)
        net.node.space.run("ip", "-6", "route", "flush", *words)
        assert claimed(net.node.space) == set()
        wait_for("claims", lambda: claimed(net.node.space) == OF_WEB, patience=15)
        for address in OF_WEB:
            assert ask(net.client.space, "TCP", address, 80).startswith("a ")
        assert "restored 4 claimed addresses that another program had removed" in uproxy.log
        net.node.space.run("ip", "route", "del", "local", LB_IP, "dev", "lo", *words[:2])
        wait_for("claim", lambda: claimed(net.node.space) == OF_WEB, patience=15)


def test_a_second_one_claims_when_the_first_ends(
    net: World, backend: Pod, manifests: Path, tmp_path: Path
) -> None:
    """As in an upgrade that starts the new one first."""
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    write(manifests, "web.yaml", *web(net, ports=PORT_OF_SECOND, status={}))
    with program(net.node.space, nothing) as first:
        others = ("--healthz-bind-address=127.0.0.1:1", "--metrics-bind-address=127.0.0.1:2")
        with program(net.node.space, manifests, *others, ready=False) as second:
            second.health, second.metrics = 1, 2
            second.wait_ready()
            reason = "and another uproxy claims the addresses of this node"
            assert reason in second.frontend(f"{CLUSTER_IP}:80/TCP")["reason"]
            assert claimed(net.node.space) == set()
            first.stop()
            wait_for("claim", lambda: claimed(net.node.space) == {CLUSTER_IP, CLUSTER_IP6})
            assert ask(net.client.space, "TCP", CLUSTER_IP, 80).startswith("a ")


def test_an_address_that_appears_is_served_at_once(
    net: World, backend: Pod, manifests: Path
) -> None:
    """Not only when the retry (5 s) or the next look (10 s) is due."""
    write(manifests, "web.yaml", *web(net, clusterIPs=[CLUSTER_IP], status={}))
    with program(net.node.space, manifests, "--claim-addresses", "never") as uproxy:
        assert ask(net.client.space, "TCP", CLUSTER_IP, 80) == UNREACHABLE
        assert state_and_reason(uproxy, CLUSTER_IP)[0] == "elsewhere"
        net.node.space.ip(f"addr add {CLUSTER_IP}/32 dev eth0")
        try:
            wait_for(
                "service",
                lambda: ask(net.client.space, "TCP", CLUSTER_IP, 80).startswith("a "),
                patience=4,
            )
        finally:
            net.node.space.ip(f"addr del {CLUSTER_IP}/32 dev eth0")


def test_thousands(net: World) -> None:
    """Batches, answers and all: 3,000 addresses at once, then none."""
    addresses = [f"203.0.{i >> 8}.{i & 255}" for i in range(2000)]
    addresses += [f"2001:db8:3::1:{i:x}" for i in range(1, 1001)]
    with net.node2.space.inside():
        assert our_routes.permission_error() is None
        assert claim_routes.add_claims(addresses) == {}
        assert claim_routes.add_claims(addresses) == {}, "twice is fine"
        assert claim_routes.held_claims() == set(addresses)
        assert claim_routes.release_claims(addresses[1:]) == {}
        assert claim_routes.release_claims(addresses[1:]) == {}, "twice is fine"
        assert claim_routes.remove_claims() == addresses[:1]
        assert claim_routes.held_claims() == set()


def state_and_reason(uproxy: Node, address: str) -> tuple[str, str]:
    """State and reason of the TCP frontend at an address."""
    host = f"[{address}]" if ":" in address else address
    found = uproxy.frontend(f"{host}:80/TCP")
    return found["state"], found["reason"]


def _alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
