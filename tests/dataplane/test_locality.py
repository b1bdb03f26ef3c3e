"""Which addresses belong to this node and its cluster, and what a route allows the others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.dataplane.locality import Locality
from uproxy.net.messages import LocalClients

NEAR, FAR = Backend("10.0.0.1", 80), Backend("10.0.0.2", 80)


def route(local: tuple[Backend, ...] | None) -> Route:
    return Route(
        frontend=Frontend("TCP", "192.0.2.80", 80),
        owner=ServicePortName("default", "web", "", "TCP"),
        kind=FrontendKind.LOAD_BALANCER_IP,
        backends=(NEAR, FAR),
        local_backends=local,
        preserves_outside=local is not None,
        preserves_pods=True,
    )


def locality() -> Locality:
    made = Locality()
    made.update(LocalClients(("192.0.2.1", "2001:db8::1"), ("10.0.0.0/16", "not a network")))
    return made


@pytest.mark.parametrize("client", ["192.0.2.1", "2001:db8::1", "127.0.0.9", "::1", "10.0.3.4"])
def test_this_node_and_pods_may_use_all_backends(client: str) -> None:
    assert locality().backends_for(route((NEAR,)), client) == (NEAR, FAR)


def test_clients_from_outside_may_use_local_backends_only_where_the_policy_says_so() -> None:
    assert locality().backends_for(route((NEAR,)), "198.51.100.7") == (NEAR,)
    assert locality().backends_for(route(()), "198.51.100.7") == ()
    assert locality().backends_for(route(None), "198.51.100.7") == (NEAR, FAR)


def test_what_this_node_sends_to_an_address_that_it_has_claimed_comes_from_that_address() -> None:
    assert not locality().is_outside(route((NEAR,)), "192.0.2.80")


def test_only_a_change_of_the_families_needs_new_routes() -> None:
    made = locality()
    assert not made.update(LocalClients(("192.0.2.2",), ()))
    assert made.update(LocalClients(("192.0.2.2",), (), ("IPv4",)))
    assert made.preserves_outside(route(()))
    assert not made.preserves_outside(route(None))
    assert made.update(LocalClients(("192.0.2.2",), (), ("IPv6",)))
    assert not made.preserves_outside(route(()))


def with_pods(**different: Any) -> Locality:
    made = Locality()
    clients = LocalClients(
        ("192.0.2.1", "10.0.0.1", "2001:db8::1"),
        ("10.0.0.0/16", "2001:db8:1::/48"),
        ("IPv4", "IPv6"),
        ("10.0.0.0/24", "10.0.7.9/32", "2001:db8:1::/64", "not a network"),
    )
    made.update(msgspec.structs.replace(clients, **different))
    return made


@pytest.mark.parametrize(
    ("client", "here"),
    [
        ("10.0.0.2", True),
        ("10.0.7.9", True),
        ("2001:db8:1::5", True),
        ("10.0.7.8", False),
        ("2001:db8:1:1::5", False),
        ("198.51.100.7", False),
        ("fe80::1%eth0", False),
        # Addresses of the node itself, one of which is that of its bridge.
        ("10.0.0.1", False),
        ("192.0.2.1", False),
        ("127.0.0.1", False),
    ],
)
def test_pods_of_this_node(client: str, here: bool) -> None:
    made = with_pods()
    for _ in range(2):
        assert made.is_pod_here(client) == here
    made.update(LocalClients((), ()))
    assert not made.is_pod_here(client)


def test_of_any_number_of_clients_few_are_remembered() -> None:
    made = with_pods()
    for number in range(10_000):
        assert not made.is_pod_here(f"198.18.{number // 250}.{number % 250}")
    assert made.is_pod_here("10.0.0.2")
    assert len(made._is_pod_here) < 5000


@pytest.mark.parametrize(
    ("clients", "shown"),
    [
        pytest.param({}, True, id="all of it"),
        pytest.param({"preserved": ("IPv6",)}, False, id="no rules for the family"),
        pytest.param({"pods": ()}, False, id="no pods"),
    ],
)
def test_whether_a_route_shows_pods(clients: dict[str, Any], shown: bool) -> None:
    made = with_pods(**clients)
    assert made.preserves_pods(route(None)) == shown
    assert not made.preserves_pods(msgspec.structs.replace(route(None), preserves_pods=False))


@pytest.mark.parametrize(
    ("pod", "backend", "past"),
    [
        pytest.param("10.0.0.2", "10.0.0.3", True, id="the same bridge"),
        pytest.param("2001:db8:1::2", "2001:db8:1::3", True, id="the same bridge, IPv6"),
        pytest.param("10.0.0.2", "10.0.1.3", False, id="two bridges"),
        pytest.param("10.0.0.2", "10.0.9.3", False, id="elsewhere"),
        pytest.param("10.0.9.2", "10.0.0.3", False, id="another link"),
        pytest.param("10.0.9.2", "192.0.2.1", True, id="the host network"),
    ],
)
def test_which_replies_do_not_come_by(pod: str, backend: str, past: bool) -> None:
    switched = ("10.0.0.0/24", "10.0.1.0/24", "2001:db8:1::/64")
    assert with_pods(switched=switched).is_past_us(pod, backend) == past
    assert with_pods().is_past_us(pod, backend) == (backend == "192.0.2.1")


def test_the_first_pods_and_the_last_need_new_routes() -> None:
    made = with_pods(pods=())
    clients = LocalClients((), (), ("IPv4", "IPv6"))
    assert made.update(msgspec.structs.replace(clients, pods=("10.0.0.0/24",)))
    assert not made.update(msgspec.structs.replace(clients, pods=("10.0.0.0/25",)))
    assert not made.update(
        msgspec.structs.replace(clients, pods=("10.0.0.0/25",), switched=("10.0.0.0/25",))
    )
    assert made.update(clients)
