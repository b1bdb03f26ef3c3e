"""Which addresses of a Service are served: kube-proxy's TestServiceToServiceMap and similar
tables."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import endpoint_slice, port, service, table
from uproxy.core.cluster.objects import LoadBalancerIngress, ObjectName, Service, ServiceSpec
from uproxy.core.ip import parse_network
from uproxy.core.route import FrontendKind
from uproxy.core.routing.table import RoutingTable

WEB = ObjectName("default", "web")
DUAL: dict[str, Any] = {
    "ip": "10.96.0.1",
    "cluster_ips": ("10.96.0.1", "fd00::1"),
    "ip_families": ("IPv4", "IPv6"),
}
PROXY_NAME = "service.kubernetes.io/service-proxy-name"


def reached(found: RoutingTable) -> set[str]:
    return {str(frontend) for frontend in found.routes}


def reasons(found: RoutingTable) -> tuple[str, ...]:
    return found.services[WEB].reasons


@pytest.mark.parametrize(
    ("given", "frontends"),
    [
        pytest.param(
            service("web", port(1234, "a", protocol="UDP"), port(1235, "b", protocol="UDP")),
            {"10.96.0.1:1234/UDP", "10.96.0.1:1235/UDP"},
            id="ClusterIP with two UDP ports",
        ),
        pytest.param(
            service(
                "web",
                port(345, "a", protocol="UDP", node_port=30345),
                port(344, "b", node_port=30344),
                type="NodePort",
            ),
            {
                *("10.96.0.1:345/UDP", "0.0.0.0:30345/UDP"),
                *("10.96.0.1:344/TCP", "0.0.0.0:30344/TCP"),
            },
            id="NodePort, UDP and TCP",
        ),
        pytest.param(
            service("web", type="LoadBalancer", load_balancer_ip="5.6.7.8", ingress=["10.1.2.4"]),
            {"10.96.0.1:80/TCP", "10.1.2.4:80/TCP"},
            id="LoadBalancer: the status counts, spec.loadBalancerIP does not",
        ),
        pytest.param(
            service("web", ingress=[LoadBalancerIngress(ip="10.1.2.4", ip_mode="VIP")]),
            {"10.96.0.1:80/TCP", "10.1.2.4:80/TCP"},
            id="ipMode VIP, whatever the type",
        ),
        pytest.param(
            service("web", ingress=[LoadBalancerIngress(ip="10.1.2.4", ip_mode="")]),
            {"10.96.0.1:80/TCP", "10.1.2.4:80/TCP"},
            id="ipMode empty, as if there were none",
        ),
        pytest.param(
            service("web", ingress=[LoadBalancerIngress(hostname="lb.example")]),
            {"10.96.0.1:80/TCP"},
            id="ingress with a host name only",
        ),
        pytest.param(
            service("web", ingress=[LoadBalancerIngress(hostname="lb.example", ip_mode="Proxy")]),
            {"10.96.0.1:80/TCP"},
            id="ingress with a host name only, ipMode Proxy",
        ),
        pytest.param(
            service("web", ingress=[LoadBalancerIngress(ip="10.1.2.4", hostname="lb.example")]),
            {"10.96.0.1:80/TCP", "10.1.2.4:80/TCP"},
            id="ingress with an address and a host name",
        ),
        pytest.param(
            service("web", external_ips=("192.0.2.7",)),
            {"10.96.0.1:80/TCP", "192.0.2.7:80/TCP"},
            id="external IP",
        ),
        pytest.param(
            service("web", port(80, node_port=30080), ip="fd00::1", ip_families=("IPv6",)),
            {"[fd00::1]:80/TCP", "[::]:30080/TCP"},
            id="single stack, IPv6",
        ),
        pytest.param(
            service("web", port(80, node_port=30080), external_ips=("fd01::7",), **DUAL),
            {
                *("10.96.0.1:80/TCP", "0.0.0.0:30080/TCP"),
                *("[fd00::1]:80/TCP", "[::]:30080/TCP", "[fd01::7]:80/TCP"),
            },
            id="dual stack",
        ),
        pytest.param(
            service("web", ip="172.30.0.041", external_ips=("172.30.000.042",)),
            {"172.30.0.41:80/TCP", "172.30.0.42:80/TCP"},
            id="leading zeros (TestBadIPs)",
        ),
        pytest.param(
            service("web", port(80, "tcp"), port(80, "udp", protocol="UDP")),
            {"10.96.0.1:80/TCP", "10.96.0.1:80/UDP"},
            id="TCP and UDP on one number",
        ),
        pytest.param(
            service("web", external_ips=("192.0.2.7", "192.0.2.007"), ingress=["192.0.2.7"]),
            {"10.96.0.1:80/TCP", "192.0.2.7:80/TCP"},
            id="one address in several fields is one frontend",
        ),
    ],
)
def test_served_without_a_word(given: Service, frontends: set[str]) -> None:
    found = table(given)
    assert reached(found) == frontends
    assert reasons(found) == ()


@pytest.mark.parametrize(
    ("given", "options", "reason"),
    [
        pytest.param(
            service("web", type="ExternalName", external_name="db.example"),
            {},
            "type is ExternalName; clients reach it through DNS",
            id="ExternalName, even with a clusterIP",
        ),
        pytest.param(
            service("web", ip="None"),
            {},
            "it is headless (clusterIP None); clients reach its endpoints through DNS",
            id="headless",
        ),
        pytest.param(
            service("web", ip="None"),
            {"serve_unallocated": True},
            "it is headless (clusterIP None); clients reach its endpoints through DNS",
            id="headless in a manifest",
        ),
        pytest.param(
            service("web", ip=""),
            {},
            "it has no clusterIP yet; the API server assigns one",
            id="no clusterIP",
        ),
        pytest.param(
            service("web", ip="10.0.0.999"),
            {},
            'clusterIP "10.0.0.999" is not an IP address',
            id="clusterIP is none",
        ),
        pytest.param(
            service("web", labels={PROXY_NAME: "other"}),
            {},
            f'label {PROXY_NAME} is "other", so another proxy serves it',
            id="another proxy's",
        ),
        pytest.param(
            service("web", labels={PROXY_NAME: ""}),
            {},
            f'label {PROXY_NAME} is "", so another proxy serves it',
            id="label present though empty",
        ),
        pytest.param(
            service("web"),
            {"service_proxy_name": "mine"},
            f'it has no label {PROXY_NAME}; this uproxy serves those with "mine"',
            id="another proxy's",
        ),
        pytest.param(
            service("web", ip=""),
            {"serve_unallocated": True},
            "it has no clusterIP, externalIP, load-balancer IP or nodePort to listen on",
            id="nothing to listen on",
        ),
        pytest.param(
            service("web", port(80, node_port=30080), ip="", type="NodePort"),
            {"serve_unallocated": True, "nodeport_addresses": ()},
            "its nodePort is not served, as no address of this node is in --nodeport-addresses",
            id="no address for NodePorts",
        ),
        pytest.param(
            service("web", port(80), ip="", type="NodePort"),
            {"serve_unallocated": True},
            'port "80": type is NodePort; set nodePort, which only an API server assigns',
            id="no nodePort is assigned",
        ),
        pytest.param(
            service("web", port(80, "s", protocol="SCTP")),
            {},
            'port "s": protocol SCTP is not supported; TCP and UDP are',
            id="SCTP",
        ),
        pytest.param(
            service("web", port(80, protocol="SCTP"), port(81, "q", protocol="SCTP")),
            {},
            'ports "80", "q": protocol SCTP is not supported; TCP and UDP are',
            id="several ports have one reason",
        ),
        pytest.param(
            service("web", *(port(80 + n, f"s{n}", protocol="SCTP") for n in range(1004))),
            {},
            'ports "s0", "s1", "s2" and 1,001 more: protocol SCTP is not supported; '
            "TCP and UDP are",
            id="very many ports, too",
        ),
        pytest.param(
            service("web", port(80, "s", protocol="QUIC")),
            {},
            'port "s": protocol QUIC is not supported; TCP and UDP are',
            id="a protocol that the API does not have",
        ),
        pytest.param(
            service("web", port(80, "s", protocol="tcp")),
            {},
            'port "s": protocol tcp is not supported; TCP and UDP are',
            id="protocols are in capital letters",
        ),
    ],
)
def test_not_served(given: Service, options: dict[str, Any], reason: str) -> None:
    found = table(given, endpoint_slice("web", "10.0.0.1"), **options)
    assert reached(found) == set()
    assert reasons(found) == (reason,)


def test_no_ports() -> None:
    spec = ServiceSpec(cluster_ip="10.96.0.1")
    found = table(Service(metadata=service("web").metadata, spec=spec))
    assert (reached(found), reasons(found)) == (set(), ("spec.ports is empty",))


def test_the_label_by_which_this_proxy_serves_it() -> None:
    given = service("web", labels={PROXY_NAME: "mine"})
    assert reached(table(given, service_proxy_name="mine")) == {"10.96.0.1:80/TCP"}


@pytest.mark.parametrize(
    ("given", "frontends", "reason"),
    [
        pytest.param(
            service("web", port(80, "p"), port(81, "s", protocol="SCTP")),
            {"10.96.0.1:80/TCP"},
            'port "s": protocol SCTP is not supported; TCP and UDP are',
            id="one port of an unknown protocol",
        ),
        pytest.param(
            service(
                "web",
                port(80, "t"),
                port(80, "s", protocol="SCTP"),
                port(80, "u", protocol="UDP"),
            ),
            {"10.96.0.1:80/TCP", "10.96.0.1:80/UDP"},
            'port "s": protocol SCTP is not supported; TCP and UDP are',
            id="three protocols at one number",
        ),
        pytest.param(
            service("web", external_ips=("x", "192.0.2.7")),
            {"10.96.0.1:80/TCP", "192.0.2.7:80/TCP"},
            'externalIP "x" is not an IP address',
            id="one external IP is none",
        ),
        pytest.param(
            service("web", ingress=["x", "192.0.2.7"]),
            {"10.96.0.1:80/TCP", "192.0.2.7:80/TCP"},
            'load-balancer IP "x" is not an IP address',
            id="one ingress is none",
        ),
        *(
            pytest.param(
                service("web", ingress=[address, "192.0.2.7"]),
                {"10.96.0.1:80/TCP", "192.0.2.7:80/TCP"},
                f'load-balancer IP "{address}" is not the address of one host',
                id=f"ingress {address}",
            )
            for address in ("0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1")
        ),
        pytest.param(
            service("web", ingress=[LoadBalancerIngress(ip="192.0.2.7", ip_mode="Proxy")]),
            {"10.96.0.1:80/TCP"},
            "load-balancer IP 192.0.2.7 has ipMode Proxy;"
            " clients must pass through the load balancer",
            id="ipMode Proxy",
        ),
        pytest.param(
            service(
                "web",
                port(80, node_port=30080),
                ingress=[
                    LoadBalancerIngress(ip="192.0.2.7", ip_mode="Proxy"),
                    LoadBalancerIngress(ip="192.0.2.8", ip_mode="VIP"),
                    LoadBalancerIngress(hostname="lb.example"),
                    LoadBalancerIngress(ip="192.0.2.9"),
                ],
            ),
            {"10.96.0.1:80/TCP", "0.0.0.0:30080/TCP", "192.0.2.8:80/TCP", "192.0.2.9:80/TCP"},
            "load-balancer IP 192.0.2.7 has ipMode Proxy;"
            " clients must pass through the load balancer",
            id="several ingresses, each with a mode of its own",
        ),
        pytest.param(
            service(
                "web",
                external_ips=("192.0.2.7",),
                ingress=[LoadBalancerIngress(ip="192.0.2.7", ip_mode="Proxy")],
            ),
            {"10.96.0.1:80/TCP", "192.0.2.7:80/TCP"},
            "load-balancer IP 192.0.2.7 has ipMode Proxy;"
            " clients must pass through the load balancer",
            id="ipMode Proxy, and an external IP as well",
        ),
        pytest.param(
            service("web", ingress=[LoadBalancerIngress(ip="192.0.2.7", ip_mode="Tunnel")]),
            {"10.96.0.1:80/TCP"},
            "load-balancer IP 192.0.2.7 has ipMode Tunnel, which is not known (VIP and Proxy are);"
            " clients must pass through the load balancer",
            id="an ipMode that is not known",
        ),
        pytest.param(
            service("web", external_ips=("fd00::7",)),
            {"10.96.0.1:80/TCP"},
            "externalIP fd00::7 is left out: IPv6 is not among the Service's families",
            id="external IP of a family that the Service lacks",
        ),
    ],
)
def test_partly_served(given: Service, frontends: set[str], reason: str) -> None:
    found = table(given)
    assert reached(found) == frontends
    assert reasons(found) == (reason,)


@pytest.mark.parametrize(
    ("given", "family", "frontends"),
    [
        pytest.param({}, "IPv4", {"0.0.0.0:30080/TCP", "192.0.2.7:80/TCP"}, id="as its slices"),
        pytest.param({}, "IPv6", {"[::]:30080/TCP", "[2001:db8::7]:80/TCP"}, id="IPv6 slices"),
        pytest.param(
            {"ip_families": ("IPv6", "IPv4")},
            "IPv4",
            {
                *("0.0.0.0:30080/TCP", "192.0.2.7:80/TCP"),
                *("[::]:30080/TCP", "[2001:db8::7]:80/TCP"),
            },
            id="ipFamilies decide first",
        ),
        *(
            pytest.param(
                {"ip_family_policy": policy},
                "IPv4",
                {
                    *("0.0.0.0:30080/TCP", "192.0.2.7:80/TCP"),
                    *("[::]:30080/TCP", "[2001:db8::7]:80/TCP"),
                },
                id=f"{policy}: both, as an address of a load balancer is assigned for both",
            )
            for policy in ("PreferDualStack", "RequireDualStack")
        ),
        pytest.param(
            {"ip_family_policy": "SingleStack"},
            "IPv6",
            {"[::]:30080/TCP", "[2001:db8::7]:80/TCP"},
            id="SingleStack",
        ),
        pytest.param(
            {}, None, {"0.0.0.0:30080/TCP", "192.0.2.7:80/TCP"}, id="IPv4 when nothing tells"
        ),
    ],
)
def test_without_a_cluster_ip(
    given: dict[str, Any], family: str | None, frontends: set[str]
) -> None:
    """In plain manifests no API server has assigned a clusterIP."""
    objects = [endpoint_slice("web", family=family)] if family else []
    found = table(
        service(
            "web",
            port(80, node_port=30080),
            ip="",
            type="NodePort",
            external_ips=("192.0.2.7", "2001:db8::7"),
            **given,
        ),
        *objects,
        serve_unallocated=True,
    )
    assert reached(found) == frontends


class TestExternalIPs:
    @pytest.mark.parametrize(
        ("options", "served"),
        [
            pytest.param({}, True, id="no rule: binding decides"),
            pytest.param(
                {"external_ip_addresses": frozenset({"192.0.2.7"})}, True, id="of this node"
            ),
            pytest.param({"external_ip_addresses": frozenset()}, False, id="not of this node"),
            pytest.param(
                {
                    "external_ip_addresses": frozenset(),
                    "external_ip_cidrs": (parse_network("192.0.2.0/24"),),
                },
                True,
                id="allowed network",
            ),
            pytest.param(
                {
                    "external_ip_addresses": frozenset(),
                    "external_ip_cidrs": (parse_network("2001:db8::/32"),),
                },
                False,
                id="allowed network of the other family",
            ),
        ],
    )
    def test_which_addresses_may_be_claimed(self, options: dict[str, Any], served: bool) -> None:
        """CVE-2020-8554: a Service must not take an address that belongs to another machine."""
        found = table(service("web", external_ips=("192.0.2.7",)), **options)
        assert ("192.0.2.7:80/TCP" in reached(found)) is served
        assert reasons(found) == (
            ()
            if served
            else (
                "externalIP 192.0.2.7 is not an address of this node;"
                " allow it with --external-ip-cidrs 192.0.2.7/32",
            )
        )

    def test_what_no_option_would_serve_is_not_said_to_be_allowed_by_one(self) -> None:
        given = service("web", external_ips=("2001:db8::7",))
        found = table(given, external_ip_addresses=frozenset())
        assert reasons(found) == (
            "externalIP 2001:db8::7 is left out: IPv6 is not among the Service's families",
        )

    @pytest.mark.parametrize(
        ("address", "cidr"),
        [
            pytest.param("203.0.113.250", "203.0.113.250/32", id="IPv4"),
            pytest.param("2001:DB8::cb00:71fa", "2001:db8::cb00:71fa/128", id="IPv6"),
        ],
    )
    def test_the_reason_names_the_option_that_allows_it(self, address: str, cidr: str) -> None:
        """The addresses of Kubernetes' own case for an externalIP that no node has."""
        given = service("web", external_ips=(address,), **DUAL)
        nowhere = frozenset[str]()
        found = table(given, external_ip_addresses=nowhere)
        (reason,) = reasons(found)
        assert reason.endswith(f"; allow it with --external-ip-cidrs {cidr}")
        assert found.not_allowed == {given.key}
        option = (parse_network(cidr),)
        allowed = table(given, external_ip_addresses=nowhere, external_ip_cidrs=option)
        assert reasons(allowed) == ()
        assert not allowed.not_allowed


class TestNodePorts:
    @pytest.mark.parametrize(
        ("addresses", "frontends"),
        [
            pytest.param(
                ("192.0.2.1", "127.0.0.1", "::1"),
                {"192.0.2.1:30080/TCP", "127.0.0.1:30080/TCP", "[::1]:30080/TCP"},
                id="each address of the family",
            ),
            pytest.param(("0.0.0.0",), {"0.0.0.0:30080/TCP"}, id="no address of one family"),
            pytest.param((), set(), id="none at all"),
        ],
    )
    def test_addresses(self, addresses: tuple[str, ...], frontends: set[str]) -> None:
        given = service("web", port(80, node_port=30080), type="NodePort", **DUAL)
        found = table(given, nodeport_addresses=addresses)
        node_ports = {
            str(f) for f, route in found.routes.items() if route.kind is FrontendKind.NODE_PORT
        }
        assert node_ports == frontends

    def test_a_load_balancer_without_node_ports(self) -> None:
        given = service(
            "web",
            type="LoadBalancer",
            allocate_load_balancer_node_ports=False,
            ingress=["192.0.2.7"],
        )
        assert reached(table(given)) == {"10.96.0.1:80/TCP", "192.0.2.7:80/TCP"}
