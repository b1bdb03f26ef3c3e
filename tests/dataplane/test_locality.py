"""Which addresses belong to this node and its cluster, and what a route allows the others."""

from __future__ import annotations

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
    assert made.preserves(route(()))
    assert not made.preserves(route(None))
    assert made.update(LocalClients(("192.0.2.2",), (), ("IPv6",)))
    assert not made.preserves(route(()))
