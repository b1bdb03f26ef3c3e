"""Flows that have ended, for people and scripts."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from tests.flow_records import record
from uproxy.core.cluster.pod_history import NOWHERE, Place
from uproxy.core.report.flow_format import (
    Ended,
    FlowFilter,
    Position,
    cursor_text,
    flow_view,
    merged,
    parse_cursor,
    parse_flow_filter,
)
from uproxy.core.route import Backend, Frontend


def test_every_key() -> None:
    view = flow_view(Ended(record(7), worker=1), Place("web-0", "node-a"))
    assert msgspec.to_builtins(view) == {
        "start": "2023-11-14T22:13:20.250000Z",
        "duration": 1.5,
        "protocol": "TCP",
        "client": "192.0.2.7",
        "clientPort": 50123,
        "frontend": "10.96.0.1:80",
        "service": "default/web",
        "servicePort": "http",
        "backend": "10.0.0.1:8080",
        "pod": "web-0",
        "node": "node-a",
        "clientBytes": 120,
        "backendBytes": 45000,
        "dialTime": 0.002,
        "attempts": 1,
        "code": "--",
        "bad": False,
        "reason": "",
        "clientRtt": 0.00025,
        "backendRtt": 0.0012,
        "clientRetransmits": 0,
        "backendRetransmits": 3,
        "worker": 1,
        "number": 7,
    }


def test_what_is_not_known_is_null() -> None:
    view = flow_view(
        Ended(record(backend=None, client_rtt=0, code="PC", reason="source_refused"), 0), NOWHERE
    )
    assert (view.backend, view.pod, view.node, view.client_rtt) == (None, None, None, None)
    assert (view.bad, view.reason) == (True, "source_refused")


def test_addresses_of_ipv6_are_in_brackets() -> None:
    found = record(frontend=Frontend("TCP", "fd00::1", 80), backend=Backend("fd00::2", 8080))
    view = flow_view(Ended(found, 0), NOWHERE)
    assert (view.frontend, view.backend) == ("[fd00::1]:80", "[fd00::2]:8080")


def test_records_of_workers_are_merged_by_their_ends() -> None:
    def ended(worker: int, *times: float) -> list[Ended]:
        return [Ended(record(start=each - 1.5), worker) for each in times]

    found, left_out = merged([ended(0, 10, 12, 14), ended(1, 11, 13)], limit=4)
    assert [(each.worker, each.time) for each in found] == [(1, 11), (0, 12), (1, 13), (0, 14)]
    assert left_out == 1


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, FlowFilter("", "", False, 100, "")),
        ({"namespace": "prod", "service": "web"}, FlowFilter("prod", "web")),
        ({"bad": "true", "limit": "5"}, FlowFilter(bad=True, limit=5)),
        ({"bad": "0", "limit": ""}, FlowFilter()),
        ({"after": "0-12-34,1-13-0"}, FlowFilter(after="0-12-34,1-13-0")),
    ],
)
def test_what_can_be_asked_for(query: dict[str, str], wanted: FlowFilter) -> None:
    assert parse_flow_filter(query) == wanted


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"sevice": "web"}, "'sevice': use namespace, service, bad, limit, after"),
        ({"bad": "perhaps"}, "use true or false"),
        ({"limit": "0"}, "from 1 to 10000"),
        ({"limit": "10001"}, "from 1 to 10000"),
        ({"limit": "-1"}, "from 1 to 10000"),
        ({"limit": "\u0663"}, "from 1 to 10000"),
        ({"limit": "9" * 5000}, "from 1 to 10000"),
        ({"after": "yesterday"}, '"cursor" of an earlier answer'),
        ({"after": "0-1-2,"}, '"cursor" of an earlier answer'),
        ({"after": "0-1-" + "9" * 30}, '"cursor" of an earlier answer'),
    ],
)
def test_what_cannot(query: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_flow_filter(query)


@pytest.mark.parametrize("cursor", [{}, {0: Position(4711, 0)}, {2: (1, 9), 0: (3, 4)}])
def test_a_cursor_comes_back(cursor: dict[int, Any]) -> None:
    assert parse_cursor(cursor_text({at: Position(*each) for at, each in cursor.items()})) == cursor
