"""What Services ask of their addresses, and what is wrong with some requests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import service
from tests.core.allocation.world import V4, V6, World, balancer, pool, requesting
from uproxy.core.allocation.requests import Request, Unservable, read_request
from uproxy.core.cluster.objects import Service

POOL = pool("a", "192.0.2.0/24", "2001:db8::/120")
ASKED = "192.0.2.7"


def annotated(prefix: str, name: str, text: str) -> dict[str, str]:
    return {f"{prefix}{name}": text}


def request(obj: Service) -> Request:
    found = read_request(obj)
    assert isinstance(found, Request)
    return found


@pytest.mark.parametrize(
    ("fields", "addresses"),
    [
        pytest.param({}, (), id="nothing"),
        pytest.param({"load_balancer_ip": "192.0.2.7"}, (ASKED,), id="spec"),
        pytest.param({"load_balancer_ip": " 192.0.2.7 "}, (ASKED,), id="spec-with-spaces"),
        pytest.param({"annotations": requesting("192.0.2.7")}, (ASKED,), id="annotation"),
        pytest.param({"annotations": requesting(" 192.0.2.7 ")}, (ASKED,), id="spaces"),
        pytest.param({"annotations": requesting("")}, (), id="empty"),
        pytest.param(
            {"annotations": requesting("192.0.2.7", " 2001:DB8::7")},
            (ASKED, "2001:db8::7"),
            id="two-families",
        ),
        pytest.param(
            {"annotations": requesting("192.0.2.7"), "load_balancer_ip": "192.0.2.7"},
            (ASKED,),
            id="both-agree",
        ),
        pytest.param(
            {
                "annotations": {
                    "metallb.universe.tf/loadBalancerIPs": "192.0.2.1",
                    "metallb.io/loadBalancerIPs": "192.0.2.2",
                    "uproxy.dev/loadBalancerIPs": "192.0.2.3",
                }
            },
            ("192.0.2.3",),
            id="own-prefix-first",
        ),
        pytest.param(
            {
                "annotations": {
                    "metallb.universe.tf/loadBalancerIPs": "192.0.2.1",
                    "metallb.io/loadBalancerIPs": "192.0.2.2",
                }
            },
            ("192.0.2.2",),
            id="deprecated-prefix-last",
        ),
    ],
)
def test_addresses(fields: dict[str, Any], addresses: tuple[str, ...]) -> None:
    found = request(balancer("web", **fields))
    assert (found.addresses, found.problem, found.deprecated) == (addresses, "", ())


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        pytest.param(
            {"load_balancer_ip": "lb\n"}, 'invalid spec.loadBalancerIP "lb\\n"', id="spec"
        ),
        pytest.param(
            {"annotations": requesting("192.0.2.7", "x")},
            'invalid metallb.io/loadBalancerIPs: "192.0.2.7,x"',
            id="annotation",
        ),
        pytest.param(
            {"annotations": requesting("192.0.2.7", "192.0.2.8")},
            'invalid metallb.io/loadBalancerIPs: "192.0.2.7,192.0.2.8"; give one address, or one '
            "of each family",
            id="two-of-one-family",
        ),
        pytest.param(
            {"annotations": requesting("192.0.2.7", "2001:db8::1", "192.0.2.8")},
            'invalid metallb.io/loadBalancerIPs: "192.0.2.7,2001:db8::1,192.0.2.8"; give one '
            "address, or one of each family",
            id="three",
        ),
        pytest.param(
            {"annotations": requesting(*["x" * 100] * 10_000)},
            f'invalid metallb.io/loadBalancerIPs: "{"x" * 97}..."',
            id="a-megabyte",
        ),
        pytest.param(
            {"annotations": requesting("192.0.2.7"), "load_balancer_ip": "192.0.2.8"},
            "service can not have both metallb.io/loadBalancerIPs and spec.loadBalancerIP, unless "
            "they are the same; now they are [192.0.2.7] and [192.0.2.8]",
            id="both-differ",
        ),
    ],
)
def test_what_is_wrong(fields: dict[str, Any], problem: str) -> None:
    world = World(POOL)
    world.put(balancer("web", **fields))
    assert (world.ips("web"), world.reason("web")) == ((), f"False {problem}")
    assert world.told("web") == [
        f'Warning AllocationFailed: Failed to allocate IP for "default/web": {problem}'
    ]


def test_a_wrong_request_takes_nothing_away() -> None:
    world = World(POOL)
    world.put(balancer("web"))
    world.change("web", load_balancer_ip="x")
    assert world.ips("web") == ("192.0.2.0",)
    problem = 'invalid requested loadbalancer IPs: invalid spec.loadBalancerIP "x"'
    assert world.told("web") == [f"Warning LoadBalancerFailed: {problem}"]
    assert world.reason("web") == f'True Assigned IP ["192.0.2.0"] from pool "a"; {problem}'


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param(
            {"annotations": requesting("203.0.113.1")},
            '"203.0.113.1" is not allowed in config: no pool has it',
            id="no-pool",
        ),
        pytest.param(
            {"annotations": requesting("2001:db8::7")},
            'requested loadBalancer IP(s) ["2001:db8::7"] does not match the ipFamily of the '
            "service, which is IPv4",
            id="other-family",
        ),
        pytest.param(
            {"annotations": requesting(ASKED, **{"metallb.io/address-pool": "b"})},
            'requested loadBalancer IP(s) ["192.0.2.7"] is not compatible with requested address '
            'pool "b"',
            id="other-pool",
        ),
        pytest.param(
            {"annotations": {"uproxy.dev/address-pool": "c\x1b"}},
            'unknown pool "c\\x1b"',
            id="unknown-pool",
        ),
    ],
)
def test_what_cannot_be_had(fields: dict[str, Any], reason: str) -> None:
    world = World(POOL, pool("b", "198.51.100.0/24"))
    world.put(balancer("web", **fields))
    assert (world.ips("web"), world.reason("web")) == ((), f"False {reason}")


def test_another_request_moves_the_service() -> None:
    world = World(POOL)
    world.put(balancer("web", load_balancer_ip=ASKED), balancer("other"))
    world.change("web", load_balancer_ip="192.0.2.8")
    assert world.ips("web") == ("192.0.2.8",)
    world.change("web", load_balancer_ip="192.0.2.0")
    assert world.ips("web") == ()
    assert "also in use by default/other" in world.reason("web")
    world.change("web", load_balancer_ip="")
    assert world.ips("web") == ("192.0.2.1",)


def test_the_order_of_a_request_means_nothing_to_who_has_it() -> None:
    world = World(POOL)
    asked = requesting(ASKED, "2001:db8::7")
    world.put(balancer("web", cluster_ips=(*V4, *V6), annotations=asked))
    turned = requesting("2001:db8::7", ASKED)
    world.change("web", annotations={**(world["web"].metadata.annotations or {}), **turned})
    assert world.ips("web") == (ASKED, "2001:db8::7")


def test_a_deprecated_annotation_is_told_when_something_changes() -> None:
    world = World(POOL)
    name = "metallb.universe.tf/address-pool"
    world.put(balancer("web", annotations={name: "a"}))
    assert world.told("web") == [
        f"Warning deprecatedAnnotation: annotation {name} is deprecated; use "
        "uproxy.dev/address-pool",
        'Normal IPAllocated: Assigned IP ["192.0.2.0"]',
    ]
    world.change("web", labels={"a": "b"})
    assert world.told("web") == []


@pytest.mark.parametrize(
    ("spec", "families"),
    [
        pytest.param({"ip": "10.96.0.1"}, ("IPv4",), id="clusterIP"),
        pytest.param({"ip": "fd00::1"}, ("IPv6",), id="clusterIP-v6"),
        pytest.param({"ip": "", "ip_families": ("IPv6",)}, ("IPv6",), id="families-in-a-manifest"),
        pytest.param({"ip": ""}, ("IPv4",), id="nothing-in-a-manifest"),
        pytest.param(
            {"ip": "", "ip_family_policy": "RequireDualStack"},
            ("IPv4", "IPv6"),
            id="policy-in-a-manifest",
        ),
        pytest.param(
            {"ip": "", "ip_families": ("IPv6", "IPv4")}, ("IPv6", "IPv4"), id="order-in-a-manifest"
        ),
    ],
)
def test_families(spec: dict[str, Any], families: tuple[str, ...]) -> None:
    assert request(service("web", type="LoadBalancer", **spec)).families == families


def test_a_headless_service_cannot_have_any() -> None:
    found = read_request(service("web", type="LoadBalancer", ip="None"))
    assert isinstance(found, Unservable)
    world = World(POOL)
    world.put(service("web", type="LoadBalancer", ip="None"))
    assert world.reason("web") == "False a Service without a ClusterIP cannot have any"
    assert world.events == []


@pytest.mark.parametrize(
    ("load_balancer_class", "ours"),
    [
        pytest.param(None, True, id="unset"),
        pytest.param("uproxy.dev/lb", True, id="ours"),
        pytest.param("example.com/other", False, id="loadbalancer_class"),
    ],
)
def test_loadbalancer_class(load_balancer_class: str | None, ours: bool) -> None:
    world = World(POOL)
    world.put(balancer("web", load_balancer_class=load_balancer_class))
    assert bool(world.ips("web")) == ours
    assert bool(world.decided) == ours
