"""Addresses that uproxy itself has assigned to Services: where they are served, and how they are
announced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import pytest

from tests.builders import NODE, endpoint_slice, local, node, service, table
from uproxy.core.cluster.load_balancer import ASSIGNED, Assigning
from uproxy.core.cluster.objects import LoadBalancerIngress, ObjectName, Service
from uproxy.core.route import Announced, Frontend, FrontendKind, Route
from uproxy.core.routing.table import RoutingTable
from uproxy.core.routing.vips import Vips

WEB = ObjectName("default", "web")
L2: dict[str, Any] = {"assigning": Assigning.POOLS, "announce": Announced.L2}
ROUTES: dict[str, Any] = {"assigning": Assigning.POOLS, "announce": Announced.ROUTES}
BY_NODE: dict[str, Any] = {"assigning": Assigning.NODE, "announce": Announced.L2}
BY_LOCALHOST: dict[str, Any] = {"assigning": Assigning.LOCALHOST, "announce": Announced.L2}
HERE = node(NODE, addresses=["192.0.2.1"])
OTHER = node("worker-2", addresses=["192.0.2.2"])
API = endpoint_slice("default/kubernetes", "192.0.2.9", ports={"https": 6443})
DUAL: dict[str, Any] = {"cluster_ips": ("10.96.0.1", "fd00::1")}


def assigned(
    *addresses: str, mode: str | None = None, also: Iterable[str] = (), **spec: Any
) -> Any:
    """A Service to which uproxy has assigned these addresses; `also` are in its status besides."""
    entries = [LoadBalancerIngress(ip=each, ip_mode=mode) for each in (*addresses, *also)]
    annotations = {ASSIGNED: ",".join(addresses)}
    return service("web", ingress=entries, annotations=annotations, type="LoadBalancer", **spec)


def at(found: RoutingTable, address: str, number: int = 80) -> Route | None:
    return found.routes.get(Frontend("TCP", address, number))


def announced(found: RoutingTable, address: str) -> Announced | None:
    route = at(found, address)
    return route.announced if route is not None else None


def claimed(found: RoutingTable) -> set[str]:
    vips = Vips()
    vips.update(found.routes, found.routes, ())
    return set(vips.frontends)


@pytest.mark.parametrize(
    ("given", "options", "expected"),
    [
        pytest.param(assigned("198.51.100.7"), L2, Announced.L2, id="L2"),
        pytest.param(assigned("198.51.100.7"), ROUTES, Announced.ROUTES, id="routes"),
        pytest.param(
            assigned("198.51.100.7"), {**L2, "assigning": Assigning.METALLB}, Announced.L2, id="CRD"
        ),
        pytest.param(
            assigned("198.51.100.7"), {**L2, "announce": Announced.NEVER}, Announced.NEVER, id="no"
        ),
        pytest.param(assigned("198.51.100.7"), {}, Announced.NEVER, id="nothing is assigned"),
        pytest.param(
            service("web", ingress=["198.51.100.7"]), L2, Announced.NEVER, id="of somebody else"
        ),
        pytest.param(
            assigned("198.51.100.8", also=["198.51.100.7"]), L2, Announced.NEVER, id="added later"
        ),
        pytest.param(assigned("198.51.100.7"), BY_NODE, Announced.NEVER, id="addresses of nodes"),
    ],
)
def test_how_it_is_announced(given: Service, options: dict[str, Any], expected: Announced) -> None:
    assert announced(table(given, **options), "198.51.100.7") is expected


def test_neither_cluster_ips_nor_external_ips_nor_node_ports_are_announced() -> None:
    given = assigned("198.51.100.7", external_ips=("198.51.100.9",))
    found = table(given, **L2)
    assert announced(found, "10.96.0.1") is Announced.NEVER
    assert announced(found, "198.51.100.9") is Announced.NEVER


@pytest.mark.parametrize("mode", ["Proxy", "VIP", "Unknown"])
def test_it_is_served_whatever_its_ip_mode(mode: str) -> None:
    """With Proxy, other service proxies send clients to it, and it is this one that serves."""
    found = table(assigned("198.51.100.7", mode=mode), **L2)
    assert at(found, "198.51.100.7")
    assert found.services[WEB].reasons == ()


@pytest.mark.parametrize(
    ("given", "options"),
    [
        pytest.param(assigned("198.51.100.7", mode="Proxy"), {}, id="nothing is assigned"),
        pytest.param(
            service("web", ingress=[LoadBalancerIngress(ip="198.51.100.7", ip_mode="Proxy")]),
            L2,
            id="of somebody else",
        ),
    ],
)
def test_the_ip_mode_of_others_counts(given: Service, options: dict[str, Any]) -> None:
    found = table(given, **options)
    assert at(found, "198.51.100.7") is None
    assert "has ipMode Proxy" in found.services[WEB].reasons[0]


class TestClaims:
    def test_what_is_announced_on_a_link_is_not_claimed(self) -> None:
        slices = endpoint_slice("web", "10.0.0.1")
        found = table(assigned("198.51.100.7"), slices, **L2)
        assert claimed(found) == {"10.96.0.1"}

    @pytest.mark.parametrize("usable", [True, False])
    def test_what_routes_announce_is_claimed_while_a_backend_is_usable(self, usable: bool) -> None:
        slices = [endpoint_slice("web", "10.0.0.1")] if usable else []
        found = table(assigned("198.51.100.7"), *slices, **ROUTES)
        assert claimed(found) == {"10.96.0.1", *(["198.51.100.7"] if usable else [])}
        assert at(found, "198.51.100.7"), "the listener is wanted in any case"


class TestAddressesOfOthers:
    @pytest.mark.parametrize(
        ("address", "whose"),
        [
            pytest.param("192.0.2.9", "the API server's address", id="API server"),
            pytest.param("192.0.2.2", "an address of node worker-2", id="node"),
            pytest.param("192.0.2.254", "this node's gateway", id="gateway"),
            pytest.param("192.0.2.53", "a DNS server of this node", id="DNS"),
            pytest.param("169.254.169.254", "a link-local address", id="metadata service"),
            pytest.param("127.0.0.1", "a loopback address", id="loopback"),
        ],
    )
    def test_are_not_served_even_if_a_pool_has_them(self, address: str, whose: str) -> None:
        machine: dict[str, Any] = {
            "reserved": {"192.0.2.254": "this node's gateway"},
            "servers": {"192.0.2.53": "a DNS server of this node"},
        }
        found = table(assigned(address), API, OTHER, **L2, **machine)
        assert at(found, address) is None
        [reason] = found.services[WEB].reasons
        assert whose in reason


class TestAddressesOfNodes:
    OWN: ClassVar[dict[str, Any]] = {**BY_NODE, "local_addresses": frozenset({"192.0.2.1"})}

    def test_each_node_serves_its_own(self) -> None:
        found = table(assigned("192.0.2.1", "192.0.2.2"), HERE, OTHER, **self.OWN)
        assert at(found, "192.0.2.1")
        assert at(found, "192.0.2.2") is None
        assert found.services[WEB].reasons == ()

    @pytest.mark.parametrize(
        ("on_interfaces", "served_at"),
        [
            pytest.param(("192.0.2.1",), {"192.0.2.1"}, id="translated by the provider"),
            pytest.param(("192.0.2.1", "203.0.113.1"), {"203.0.113.1"}, id="on an interface"),
            pytest.param(("2001:db8::1",), {"203.0.113.1"}, id="only of the other family"),
        ],
    )
    def test_an_external_address_is_served_where_packets_to_it_arrive(
        self, on_interfaces: tuple[str, ...], served_at: set[str]
    ) -> None:
        here = node(NODE, addresses=["192.0.2.1", "203.0.113.1", "2001:db8::1"])
        given = assigned("203.0.113.1")
        found = table(given, here, **BY_NODE, local_addresses=frozenset(on_interfaces))
        kind = FrontendKind.LOAD_BALANCER_IP
        assert {f.address for f, r in found.routes.items() if r.kind is kind} == served_at

    def test_those_that_another_controller_assigned_have_their_reason(self) -> None:
        found = table(service("web", ingress=["192.0.2.2"]), HERE, OTHER, **self.OWN)
        [reason] = found.services[WEB].reasons
        assert "an address of node worker-2" in reason


class TestLoopback:
    def test_is_served_if_localhost_is_assigned(self) -> None:
        found = table(assigned("127.0.0.1", "::1", **DUAL), **BY_LOCALHOST)
        assert [announced(found, each) for each in ("127.0.0.1", "::1")] == [Announced.NEVER] * 2
        assert found.services[WEB].reasons == ()

    def test_is_refused_if_another_controller_assigned_it(self) -> None:
        found = table(service("web", ingress=["127.0.0.1"]), **BY_LOCALHOST)
        assert at(found, "127.0.0.1") is None

    def test_of_a_pool_is_served_from_manifests_and_not_announced(self) -> None:
        found = table(assigned("127.0.0.64", ip=""), serve_unallocated=True, **L2)
        assert announced(found, "127.0.0.64") is Announced.NEVER
        assert claimed(found) == set()


def test_source_ranges_hold() -> None:
    given = assigned("198.51.100.7", load_balancer_source_ranges=("203.0.113.0/24",))
    found = table(given, endpoint_slice("web", local("10.0.0.1")), **L2)
    route = at(found, "198.51.100.7")
    assert route
    assert route.allowed_sources == ("203.0.113.0/24",)
