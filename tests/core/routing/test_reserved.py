"""Addresses that are never claimed, because this node needs others to have them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import (
    NODE,
    SOURCE,
    cluster,
    endpoint,
    endpoint_slice,
    node,
    port,
    service,
    table,
)
from tests.core.routing.test_frontend_requests import calls_of
from uproxy.core.cluster.host_addresses import HostAddresses
from uproxy.core.cluster.objects import Node, ObjectName
from uproxy.core.ip import parse_network
from uproxy.core.routing.build import build
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.reserved import ReservedAddresses
from uproxy.core.routing.table import RoutingTable
from uproxy.core.routing.vips import Vips

WEB = ObjectName("default", "web")
ALL: dict[str, Any] = {
    "external_ip_addresses": frozenset(),
    "external_ip_cidrs": tuple(filter(None, map(parse_network, ("0.0.0.0/0", "::/0")))),
}
"""externalIPs are allowed wherever they are."""
DUAL: dict[str, Any] = {"cluster_ips": ("10.96.0.1", "fd00::1")}
API = endpoint_slice("default/kubernetes", "192.0.2.9", ports={"https": 6443})
OTHER = node("worker-2", addresses=["192.0.2.2", "2001:DB8::2"])
MACHINE: dict[str, Any] = {
    "reserved": {"192.0.2.254": "this node's gateway"},
    "servers": {
        "192.0.2.53": "a DNS server of this node",
        "192.0.2.10": "the API server's address",
    },
}


def claimed(found: RoutingTable, local: frozenset[str] = frozenset()) -> set[str]:
    vips = Vips()
    vips.update(found.routes, found.routes, local)
    return set(vips.frontends)


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        pytest.param("192.0.2.9", "the API server's address", id="endpoint of the API server"),
        pytest.param("192.0.2.10", "the API server's address", id="host of the kubeconfig"),
        pytest.param("192.0.2.254", "this node's gateway", id="gateway"),
        pytest.param("192.0.2.53", "a DNS server of this node", id="DNS"),
        pytest.param("192.0.2.2", "an address of node worker-2", id="another node"),
        pytest.param("192.000.002.2", "an address of node worker-2", id="leading zeros"),
        pytest.param("::ffff:192.0.2.2", "an address of node worker-2", id="IPv4-mapped"),
        pytest.param("2001:DB8:0::2", "an address of node worker-2", id="IPv6, another notation"),
        pytest.param("169.254.169.254", "a link-local address", id="metadata service"),
        pytest.param(
            "::ffff:a9fe:a9fe", "a link-local address", id="metadata service, IPv4-mapped"
        ),
        pytest.param("fe80::1", "a link-local address", id="IPv6 link-local"),
        pytest.param("fd00:ec2::254", "a cloud's metadata service", id="IPv6 metadata service"),
    ],
)
def test_neither_an_external_ip_nor_a_load_balancer_ip_takes_it(address: str, whose: str) -> None:
    for field, label in (("external_ips", "externalIP"), ("ingress", "load-balancer IP")):
        given = service("web", **{field: (address,)}, **DUAL)  # type: ignore[arg-type]
        found = table(given, API, OTHER, **ALL, **MACHINE)
        assert claimed(found) == {"10.96.0.1", "fd00::1"}
        [reason] = found.services[WEB].reasons
        assert reason.startswith(f"{label} ")
        assert reason.endswith(f" is {whose}; it is not claimed")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"])
def test_what_is_not_one_host_is_not_served(address: str) -> None:
    found = table(service("web", external_ips=(address,), ingress=[address], **DUAL), **ALL)
    assert claimed(found) == {"10.96.0.1", "fd00::1"}
    assert len(found.routes) == 2
    assert len(found.services[WEB].reasons) == 2


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_not_served(address: str) -> None:
    """Not even if lo has the address: programs that listen there trust all their clients."""
    local = frozenset({"127.0.0.1", "::1"})
    options = {**ALL, "local_addresses": local}
    given = service("web", external_ips=(address,), ingress=[address], **DUAL)
    found = table(given, **options)
    assert claimed(found, local) == {"10.96.0.1", "fd00::1"}
    assert len(found.routes) == 2
    assert all(
        each.endswith("is a loopback address; it is not claimed")
        for each in found.services[WEB].reasons
    )
    assert len(found.services[WEB].reasons) == 2


def test_manifests_may_use_loopback() -> None:
    """Loopback addresses are not claimed either, but they are served, which helps to try things
    out."""
    found = table(service("web", external_ips=("127.0.0.5",)), serve_unallocated=True, **ALL)
    assert claimed(found) == {"10.96.0.1"}
    assert {frontend.address for frontend in found.routes} == {"10.96.0.1", "127.0.0.5"}


@pytest.mark.parametrize("address", ["192.0.2.254", "169.254.1.1"])
def test_a_cluster_ip_takes_neither_a_gateway_nor_a_link_local_address(address: str) -> None:
    """Manifests may say anything."""
    found = table(service("web", ip=address), API, OTHER, **MACHINE)
    assert claimed(found) == set()
    assert found.services[WEB].reasons[0].startswith(f"clusterIP {address} is ")


@pytest.mark.parametrize("address", ["192.0.2.2", "192.0.2.9"])
def test_what_others_say_of_themselves_takes_no_cluster_ip_away(address: str) -> None:
    """A kubelet that has been broken into may give its Node the address of the cluster's DNS."""
    found = table(service("web", ip=address), API, OTHER, **MACHINE)
    assert claimed(found) == {address}
    assert found.services[WEB].reasons == ()


@pytest.mark.parametrize("address", ["192.0.2.53", "192.0.2.10"])
def test_what_this_node_asks_may_be_a_service(address: str) -> None:
    """Pods on the host's network reach the API server, and DNS, at ClusterIPs."""
    found = table(service("web", ip=address), **MACHINE)
    assert claimed(found) == {address}
    assert found.services[WEB].reasons == ()


def test_an_interface_s_address_is_served_whatever_it_is() -> None:
    given = service("web", external_ips=("192.0.2.2", "192.0.2.254"), ingress=["192.0.2.53"])
    local = frozenset({"192.0.2.2", "192.0.2.254", "192.0.2.53"})
    options = {**ALL, **MACHINE, "local_addresses": local}
    found = table(given, OTHER, **options)
    assert {frontend.address for frontend in found.routes} == {"10.96.0.1", *local}
    assert claimed(found, local) == {"10.96.0.1"}
    assert found.services[WEB].reasons == ()


class TestChanges:
    """Facts about this machine come later than Services, and change."""

    def setup_method(self) -> None:
        given = service("web", external_ips=("192.0.2.2",), ingress=["192.0.2.9"])
        self.state = cluster(given, service("other", ip="10.96.0.2"))
        self.options = RoutingOptions(**ALL)
        self.table = RoutingTable()
        self.build()

    def build(self) -> set[str]:
        """The addresses of the Service after the next step."""
        dirty = self.state.take_dirty()
        assert ObjectName("default", "other") not in dirty or not self.table.routes
        self.table = build(self.state, self.options, self.table, dirty)
        routes = self.table.services[WEB].routes
        return {route.frontend.address for route in routes} - {"10.96.0.1"}

    def test_a_node_that_comes_and_goes(self) -> None:
        self.state.apply(SOURCE, OTHER)
        assert self.build() == {"192.0.2.9"}
        self.state.apply(SOURCE, node("worker-2", addresses=["192.0.2.3"]))
        assert self.build() == {"192.0.2.2", "192.0.2.9"}
        self.state.apply(SOURCE, OTHER)
        assert self.build() == {"192.0.2.9"}
        self.state.remove(SOURCE, Node, ObjectName("", "worker-2"))
        assert self.build() == {"192.0.2.2", "192.0.2.9"}

    def test_api_servers_that_move(self) -> None:
        self.state.apply(SOURCE, API)
        assert self.build() == {"192.0.2.2"}
        moved = endpoint_slice("default/kubernetes", endpoint("192.0.2.2"), "192.0.2.11")
        self.state.apply(SOURCE, moved)
        assert self.build() == {"192.0.2.9"}

    def test_heartbeats_affect_no_service(self) -> None:
        self.state.apply(SOURCE, OTHER)
        self.build()
        again = node("worker-2", addresses=["192.0.2.2", "2001:DB8::2"], version="17")
        self.state.apply(SOURCE, again)
        assert self.state.take_dirty() == set()


@pytest.mark.parametrize("local", [True, False])
def test_this_node_s_own_address_stays_while_no_interface_has_it(local: bool) -> None:
    """A renewed lease takes an address away for a moment. Clients that come back find the
    listener."""
    addresses = frozenset({"192.0.2.2"} if local else ())
    given = service("web", external_ips=("192.0.2.2",), ingress=["192.0.2.2", "192.0.2.4"])
    mine = node(NODE, addresses=["192.0.2.2", "192.0.2.4"])
    options: dict[str, Any] = dict.fromkeys(("external_ip_addresses", "local_addresses"), addresses)
    found = table(given, mine, endpoint_slice("default/kubernetes", "192.0.2.2"), **options)
    assert {each.address for each in found.routes} == {"10.96.0.1", "192.0.2.2", "192.0.2.4"}
    assert found.services[WEB].reasons == ()


def test_a_node_that_comes_is_no_more_work_among_many_services() -> None:
    def work(number: int) -> int:
        services = [service(f"s{i}", ip=f"10.96.{i >> 8}.{i & 255}") for i in range(number)]
        state = cluster(*services, service("web", ip="10.97.0.1", ingress=["192.0.2.2"]))
        state.take_dirty()
        state.apply(SOURCE, OTHER)
        taken: list[set[ObjectName]] = []
        calls = calls_of(lambda: taken.append(state.take_dirty()))
        assert taken == [{WEB}]
        return calls

    assert work(2000) <= 1.5 * work(20)


def test_holders_share_an_address() -> None:
    hosts = HostAddresses()
    assert hosts.put("a", ["x", "y"]) == {"x", "y"}
    assert hosts.put("b", ["x"]) == {"x"}
    assert hosts.put("b", ["x"]) == set()
    assert hosts.host_of("x") == "b"
    assert hosts.put("b", []) == {"x"}
    assert (hosts.host_of("x"), hosts.host_of("y")) == ("a", "a")
    hosts.put("a", [])
    assert (hosts.host_of("x"), hosts.host_of("y")) == ("", "")


def test_a_claim_of_this_node_s_own_address_is_to_be_released() -> None:
    """As soon as its Node object says that it is its own."""
    hosts = HostAddresses()
    reserved = ReservedAddresses(RoutingOptions(reserved=MACHINE["reserved"]), hosts)
    addresses = ["192.0.2.254", "192.0.2.2", "192.0.2.1"]
    assert [each for each in addresses if each in reserved] == ["192.0.2.254"]
    hosts.own = frozenset({"192.0.2.1"})
    hosts.put("an address of node worker-2", ["192.0.2.2"])
    assert all(each in reserved for each in addresses)


def test_the_api_server_is_named_before_its_node() -> None:
    found = table(
        service("web", port(80), external_ips=("192.0.2.9",)),
        API,
        node("cp", addresses=["192.0.2.9"]),
        **ALL,
    )
    assert found.services[WEB].reasons == (
        "externalIP 192.0.2.9 is the API server's address; it is not claimed",
    )
