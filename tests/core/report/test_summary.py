"""The status in brief."""

from __future__ import annotations

import msgspec
import pytest

from tests.http.statuses import CLUSTER_IP, DNS_PORT, FULL, KUBIA, NODE_PORT
from uproxy.core.report.status import FrontendState, FrontendStatus
from uproxy.core.report.summary import PortRow, port_rows, summary_view
from uproxy.core.route import Backend


def variant(status: FrontendStatus, state: FrontendState, reason: str = "") -> FrontendStatus:
    return msgspec.structs.replace(status, state=state, reason=reason)


def test_a_port_has_one_row_whatever_its_frontends() -> None:
    first, second = port_rows((DNS_PORT, NODE_PORT, CLUSTER_IP), FULL.counters)
    assert first == PortRow(
        service="default/kubia",
        port="http",
        protocol="TCP",
        state="failed",
        reason="address 10.96.0.7 is not on this node",
        concerned=1,
        frontends=["10.96.0.7:80/TCP", "127.0.0.1:30123/TCP"],
        kinds=["ClusterIP", "NodePort"],
        backends=["127.0.1.1:8080", "[fd00::2]:8080"],
        failing=0,
        flows=7,
        active_flows=2,
        client_bytes=100,
        backend_bytes=2000,
        failures=7,
        masquerade_reason="replies did not come back",
    )
    assert (second.service, second.port, second.protocol) == ("kube-system/dns", "", "UDP")
    assert (second.state, second.flows, second.backends) == ("paused", 1, [])


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        (["serving", "elsewhere"], "serving"),
        (["elsewhere", "elsewhere"], "elsewhere"),
        (["serving", "paused"], "paused"),
        (["serving", "pending"], "pending"),
        (["degraded", "conflict"], "conflict"),
        (["degraded", "paused"], "degraded"),
        (["conflict", "failed"], "failed"),
    ],
)
def test_the_state_of_a_port_is_the_worst_that_matters(states: list[str], shown: str) -> None:
    frontends = [variant(NODE_PORT, FrontendState(each), f"it is {each}") for each in states]
    (row,) = port_rows(frontends, {})
    assert (row.state, row.reason) == (shown, f"it is {shown}")
    assert row.concerned == states.count(shown)


def test_every_state_has_a_rank() -> None:
    for state in FrontendState:
        assert port_rows([variant(NODE_PORT, state)], {})[0].state == state


def test_backends_for_clients_from_outside_are_counted_too_and_none_twice() -> None:
    other = Backend("127.0.1.9", 1)
    frontend = msgspec.structs.replace(
        NODE_PORT, local_backends=(*NODE_PORT.backends, other), failing=(other,)
    )
    (row,) = port_rows([frontend, NODE_PORT], {})
    assert row.backends == ["127.0.1.1:8080", "[fd00::2]:8080", "127.0.1.9:1"]
    assert row.failing == 1


def test_a_port_without_counts_has_zeros() -> None:
    (row,) = port_rows([NODE_PORT], {})
    assert (row.flows, row.failures) == (0, 0)


def test_all_else_that_the_page_shows() -> None:
    view = summary_view(FULL, version="1.2", started=77.5)
    assert (view.node, view.version, view.started) == ("node-1", "1.2", 77.5)
    assert [each.index for each in view.workers] == [0, 1]
    assert [each.port for each in view.health_checks] == [32000]
    assert len(view.ports) == 2
    assert view.ports[0].flows == FULL.counters[KUBIA].flows
    assert [each.where for each in view.objects] == ["a.yaml:9", "b.yaml:3"]
    assert [each.service for each in view.services] == ["default/kubia", "kube-system/sctp"]
    assert [each.in_use for each in view.api_servers] == [False, True, False]
    assert view.not_ready == list(FULL.not_ready)


def test_keys_are_those_of_routes() -> None:
    """The page, and scripts, find the same words in both."""
    view = summary_view(FULL, version="1", started=0)
    raw = msgspec.json.decode(msgspec.json.encode(view))
    assert set(raw["ports"][0]) >= {"clientBytes", "backendBytes", "activeFlows", "flows"}
