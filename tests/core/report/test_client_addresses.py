"""What backends see of clients, and why they do not see more."""

from __future__ import annotations

from typing import Any

import pytest

from uproxy.core.protocols import TCP
from uproxy.core.report.client_addresses import ClientAddresses, Masquerade
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName

OWNER = ServicePortName("default", "web", "", TCP)
WORKING = ClientAddresses(families=("IPv4", "IPv6"), pods=("10.244.1.0/24", "fd00:1::/64"))
OUTSIDE: dict[str, Any] = {"preserves_outside": True}
PODS: dict[str, Any] = {"preserves_pods": True}
BOTH: dict[str, Any] = OUTSIDE | PODS


def route(address: str = "10.96.0.1", **fields: Any) -> Route:
    return Route(
        frontend=Frontend(TCP, address, 80),
        owner=OWNER,
        kind=FrontendKind.CLUSTER_IP,
        backends=(Backend("10.244.1.2", 80), Backend("10.244.2.2", 80)),
        **fields,
    )


def clients(**fields: Any) -> ClientAddresses:
    working: dict[str, Any] = {"families": WORKING.families, "pods": WORKING.pods}
    return ClientAddresses(**(working | fields))


@pytest.mark.parametrize(
    ("known", "fields", "address", "why", "reason"),
    [
        pytest.param(WORKING, {}, "node", None, "", id="the Service does not ask for it"),
        pytest.param(WORKING, OUTSIDE, "preserved", None, "", id="clients from outside"),
        pytest.param(WORKING, PODS, "pods", None, "", id="pods"),
        pytest.param(WORKING, BOTH, "preserved", None, "", id="all"),
        pytest.param(
            clients(families=(), pods=(), reason="needs CAP_NET_ADMIN"),
            BOTH,
            *("node", Masquerade.IMPOSSIBLE, "needs CAP_NET_ADMIN"),
            id="not possible",
        ),
        pytest.param(
            clients(pods=()),
            BOTH,
            *("preserved", Masquerade.UNKNOWN_PODS, "no routes to pods of its own"),
            id="no pods are known",
        ),
        pytest.param(
            clients(pods=(), families=()),
            PODS,
            *("node", Masquerade.UNKNOWN_PODS, "no routes to pods of its own"),
            id="no pods are known, so nothing was installed",
        ),
        pytest.param(
            clients(pods=("fd00:1::/64",)),
            PODS,
            *("node", Masquerade.UNKNOWN_PODS, "no routes to pods of its own"),
            id="pods of the other family only",
        ),
        pytest.param(
            clients(astray=frozenset([OWNER])),
            BOTH,
            *("preserved", Masquerade.ASTRAY, "did not come back"),
            id="astray, which concerns pods only",
        ),
        pytest.param(
            clients(astray=frozenset([OWNER])),
            PODS,
            *("node", Masquerade.ASTRAY, "did not come back"),
            id="astray",
        ),
        pytest.param(
            clients(switched={"10.244.1.0/24": "nft is too old"}),
            PODS,
            *("pods", Masquerade.SWITCHED, "between pods of 10.244.1.0/24: nft is too old"),
            id="one backend is behind a bridge that does not work",
        ),
        pytest.param(
            clients(switched={"10.244.9.0/24": "nft is too old"}),
            PODS,
            *("pods", None, ""),
            id="no backend is",
        ),
    ],
)
def test_shown(
    known: ClientAddresses,
    fields: dict[str, Any],
    address: str,
    why: Masquerade | None,
    reason: str,
) -> None:
    shown = known.shown(route(**fields))
    assert (shown.address, shown.masquerade) == (address, why)
    assert reason in shown.reason
    assert bool(shown.reason) == bool(why)
