"""Services as large as the API allows, and larger: bounded work and text, others are served."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NODE, endpoint_slice, node, port, service, table
from tests.core.routing.test_frontend_requests import calls_of
from uproxy.core.cluster.objects import LoadBalancerIngress, ObjectName
from uproxy.core.ip import parse_network
from uproxy.core.networks import Networks
from uproxy.core.routing.service_limits import frontends_for
from uproxy.core.routing.table import RoutingTable

WEB = ObjectName("default", "web")


def reasons(found: RoutingTable) -> tuple[str, ...]:
    return found.services[WEB].reasons


def addresses(number: int) -> tuple[str, ...]:
    return tuple(
        f"198.{18 + (index >> 16)}.{index >> 8 & 255}.{index & 255}" for index in range(number)
    )


@pytest.mark.parametrize(
    "what", ["external IPs of others", "no addresses", "addresses of another family", "endpoints"]
)
def test_a_thousand_reasons_are_a_few_and_a_count(what: str) -> None:
    bad = [f"198.51.100.{index}x" for index in range(1000)]
    if what == "external IPs of others":
        given = service("web", external_ips=addresses(1000))
        found = table(given, external_ip_addresses=frozenset())
    elif what == "no addresses":
        found = table(service("web", external_ips=tuple(bad)))
    elif what == "addresses of another family":
        six = tuple(f"2001:db8::{index:x}" for index in range(1, 1001))
        found = table(service("web", external_ips=six))
    else:
        found = table(service("web"), endpoint_slice("web", *bad))
    assert len(reasons(found)) == 21
    assert reasons(found)[-1] == "and 980 more"
    assert {frontend.address for frontend in found.routes} == {"10.96.0.1"}


def test_a_service_with_more_frontends_than_there_are_descriptors() -> None:
    """A million of them would take every descriptor, and minutes."""
    ports = [port(1 + index, f"p{index}") for index in range(1000)]
    huge = service("web", *ports, external_ips=addresses(1000))
    found: list[RoutingTable] = []
    work = calls_of(lambda: found.append(table(huge, service("other", ip="10.96.0.2"))))
    assert work < 1_000_000
    assert len(found[0].services[WEB].routes) == 10_000
    [reason] = reasons(found[0])
    wanted = "it has 1,001,000 addresses and ports to listen on; the first 10,000 are served"
    assert reason.startswith(wanted)
    assert len(found[0].routes) == 10_001


@pytest.mark.parametrize(
    ("descriptors", "workers", "expected"),
    [(1_048_576, 4, 10_000), (20_000, 2, 2500), (1024, 2, 128), (4, 8, 1)],
)
def test_one_service_leaves_descriptors_to_others(
    descriptors: int, workers: int, expected: int
) -> None:
    most = frontends_for(descriptors, workers)
    assert most == expected
    ports = [port(1 + index, f"p{index}") for index in range(1000)]
    found = table(service("web", *ports, external_ips=addresses(20)), frontends=most)
    assert len(found.routes) == expected
    assert len(reasons(found)) == 1


def test_a_service_with_just_as_many_frontends_as_it_may_have_lacks_none() -> None:
    ports = [port(1 + index, f"p{index}") for index in range(4)]
    found = table(service("web", *ports), frontends=4)
    assert (len(found.routes), reasons(found)) == (4, ())


def test_every_port_there_is() -> None:
    ports = [port(1 + index, f"p{index}") for index in range(9_999)]
    found = table(service("web", *ports))
    assert (len(found.routes), reasons(found)) == (9_999, ())


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        pytest.param("198.018.000.007", "198.18.0.7", id="leading zeros"),
        pytest.param("::ffff:198.18.0.7", "198.18.0.7", id="IPv4-mapped"),
        pytest.param("::FFFF:C612:0007", "198.18.0.7", id="IPv4-mapped, hexadecimal"),
    ],
)
def test_one_address_in_two_notations_is_one(text: str, canonical: str) -> None:
    vips: list[str | LoadBalancerIngress] = [canonical, text]
    vips.append(LoadBalancerIngress(ip=text, hostname="x"))
    found = table(service("web", external_ips=(canonical, text), ingress=vips))
    assert {str(frontend) for frontend in found.routes} == {
        "10.96.0.1:80/TCP",
        f"{canonical}:80/TCP",
    }
    assert reasons(found) == ()


@pytest.mark.parametrize(
    "text",
    ["fe80::1%eth0", "198.18.0.7 ", "198.18.0", "0x7f.1", "1.2.3.4/32", "[::1]", "١٢٣.1.1.1", ""],
)
def test_what_is_no_address_is_a_reason(text: str) -> None:
    found = table(service("web", external_ips=(text,)))
    assert reasons(found) == (f'externalIP "{text}" is not an IP address',)


def test_a_load_balancer_with_names_only() -> None:
    found = table(service("web", ingress=[LoadBalancerIngress(hostname="lb.example")]))
    assert (len(found.routes), reasons(found)) == (1, ())


def test_a_service_with_many_source_ranges_and_frontends() -> None:
    """Each frontend is told to workers with all of its ranges: 5,000 with 50,000 would be 5 GB."""
    ranges = tuple(f"{address}/32" for address in addresses(50_000))
    ports = [port(1 + index, f"p{index}") for index in range(500)]
    given = service("web", *ports, ingress=["203.0.113.1"], load_balancer_source_ranges=ranges)
    found = table(given, service("other", ip="10.96.0.2"))
    assert sum(len(route.allowed_sources or ()) for route in found.routes.values()) <= 1_000_000
    assert len(found.routes) == 21
    [reason] = reasons(found)
    wanted = "it has 1,000 addresses and ports to listen on; the first 20 are served"
    assert reason.startswith(wanted)


def test_a_node_with_thousands_of_addresses_and_source_ranges() -> None:
    """kube-proxy in IPVS mode leaves one for each ClusterIP. Services share the words for them."""
    local = frozenset(addresses(5000))
    services = [
        service(
            f"s{index}",
            ip=f"10.96.1.{index}",
            ingress=[f"203.0.113.{index}"],
            load_balancer_source_ranges=("192.0.2.0/24",),
        )
        for index in range(1, 100)
    ]
    mine = node(NODE, addresses=["192.0.2.1"])
    found = table(*services, mine, local_addresses=local)
    words = {id(each) for route in found.routes.values() for each in route.allowed_sources or ()}
    assert len(words) < 6000


class TestNetworks:
    @given(
        st.lists(st.ip_addresses(v=4).map(int), max_size=8),
        st.lists(st.integers(8, 32), min_size=8, max_size=8),
        st.ip_addresses(v=4),
    )
    def test_as_if_looked_through(self, first: list[int], lengths: list[int], it: object) -> None:
        pairs = zip(first, lengths, strict=False)
        networks = [
            ipaddress.IPv4Network((number, length), strict=False) for number, length in pairs
        ]
        networks += [ipaddress.IPv4Network(f"{it}/24", strict=False)][: len(networks) % 2]
        assert (str(it) in Networks(networks)) == any(it in each for each in networks)

    def test_families_and_edges(self) -> None:
        texts = ["192.0.2.0/25", "192.0.2.128/25", "::/0", "255.255.255.255/32", "192.0.2.7/32"]
        networks = Networks(filter(None, map(parse_network, texts)))
        for inside in ("192.0.2.0", "192.0.2.255", "255.255.255.255", "::", "ff::1"):
            assert inside in networks
        for outside in ("192.0.1.255", "192.0.3.0", "255.255.255.254", "0.0.0.0"):
            assert outside not in networks
        assert not Networks(())
        assert "::1" not in Networks(())

    def test_many_are_a_few_steps(self) -> None:
        networks = [ipaddress.IPv4Network((index << 10, 30)) for index in range(50_000)]
        many, few = Networks(networks), Networks(networks[:10])
        assert calls_of(lambda: "0.3.0.1" in many) <= calls_of(lambda: "0.3.0.1" in few) + 2
