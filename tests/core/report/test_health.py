"""What the health endpoints say, as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tests.nasty import NASTY
from uproxy.core.cluster.objects import Node, ObjectName
from uproxy.core.cluster.state import NodeFacts
from uproxy.core.ip import Family
from uproxy.core.report.health import ProxyHealth, not_eligible, service_health
from uproxy.core.report.readiness import Reason, ReasonKind, texts

BEGIN = 1787311751.0  # 2026-08-21T11:29:11Z

QUEUED_4, QUEUED_6 = ("queued", "IPv4"), ("queued", "IPv6")
UPDATED_4, UPDATED_6 = ("updated", "IPv4"), ("updated", "IPv6")
BOTH_UPDATED = (UPDATED_4, UPDATED_6)

Step = tuple[str, str] | float


def at(seconds: float) -> str:
    """RFC 3339 text of a whole number of seconds after the beginning, below 49."""
    return f"2026-08-21T11:29:{11 + int(seconds):02d}Z"


def play(*steps: Step) -> tuple[ProxyHealth, float]:
    """A ProxyHealth with a timeout of 10 s after some events; numbers let seconds pass."""
    health = ProxyHealth(sync_period=5.0)
    passed = 0.0
    for step in steps:
        match step:
            case ("queued", "IPv4" | "IPv6" as family):
                health.queued_update(_family(family), now=100 + passed)
            case ("updated", "IPv4" | "IPv6" as family):
                health.updated(_family(family), wall=BEGIN + passed)
            case float():
                passed += step
            case _:
                raise AssertionError(step)
    return health, passed


def _family(text: str) -> Family:
    return "IPv6" if text == "IPv6" else "IPv4"


def family_health(updated: float, healthy: bool) -> dict[str, object]:
    return {"lastUpdated": at(updated), "healthy": healthy}


TIMELINE = [
    pytest.param((), 200, None, {}, id="start: healthy before the first sync"),
    pytest.param((QUEUED_4, 25.0), 200, None, {}, id="late, but never synced: not judged"),
    pytest.param(
        BOTH_UPDATED,
        200,
        None,
        {"IPv4": (0, True), "IPv6": (0, True)},
        id="both updated",
    ),
    pytest.param(
        (*BOTH_UPDATED, 25.0),
        200,
        None,
        {"IPv4": (0, True), "IPv6": (0, True)},
        id="nothing queued for long: healthy, lastUpdated is now",
    ),
    pytest.param(
        (*BOTH_UPDATED, 1.0, QUEUED_4, 9.0),
        200,
        None,
        {"IPv4": (0, True), "IPv6": (0, True)},
        id="queued for less than the timeout",
    ),
    pytest.param(
        (*BOTH_UPDATED, 1.0, QUEUED_4, 10.0),
        503,
        0,
        {"IPv4": (0, False), "IPv6": (0, True)},
        id="queued for exactly the timeout",
    ),
    pytest.param(
        (*BOTH_UPDATED, QUEUED_4, 25.0),
        503,
        0,
        {"IPv4": (0, False), "IPv6": (0, True)},
        id="IPv4 late: lastUpdated is real",
    ),
    pytest.param(
        (*BOTH_UPDATED, QUEUED_4, 9.0, QUEUED_4, 1.0),
        503,
        0,
        {"IPv4": (0, False), "IPv6": (0, True)},
        id="only the oldest queued update counts",
    ),
    pytest.param(
        (*BOTH_UPDATED, QUEUED_4, 25.0, *BOTH_UPDATED, 5.0),
        200,
        None,
        {"IPv4": (25, True), "IPv6": (25, True)},
        id="IPv4 updated again",
    ),
    pytest.param(
        (*BOTH_UPDATED, QUEUED_6, 25.0),
        503,
        0,
        {"IPv4": (0, True), "IPv6": (0, False)},
        id="IPv6 late",
    ),
    pytest.param(
        (*BOTH_UPDATED, QUEUED_6, 25.0, *BOTH_UPDATED, 5.0),
        200,
        None,
        {"IPv4": (25, True), "IPv6": (25, True)},
        id="IPv6 updated again",
    ),
    pytest.param(
        (*BOTH_UPDATED, QUEUED_4, QUEUED_6, 25.0),
        503,
        0,
        {"IPv4": (0, False), "IPv6": (0, False)},
        id="both late",
    ),
    pytest.param(
        (*BOTH_UPDATED, QUEUED_6, 25.0, UPDATED_4),
        503,
        25,
        {"IPv4": (25, True), "IPv6": (0, False)},
        id="IPv6 late: an update of IPv4 does not help, but is the last one",
    ),
    pytest.param(
        (*BOTH_UPDATED, QUEUED_6, 25.0, UPDATED_4, UPDATED_6),
        200,
        None,
        {"IPv4": (25, True), "IPv6": (25, True)},
        id="IPv6 late: an update of IPv6 helps",
    ),
    pytest.param(
        (*BOTH_UPDATED, QUEUED_4, QUEUED_6, 25.0, UPDATED_4),
        503,
        25,
        {"IPv4": (25, True), "IPv6": (0, False)},
        id="both late: one update is not enough",
    ),
    pytest.param(
        (*BOTH_UPDATED, QUEUED_4, QUEUED_6, 25.0, UPDATED_4, UPDATED_6),
        200,
        None,
        {"IPv4": (25, True), "IPv6": (25, True)},
        id="both late: both updates are",
    ),
    pytest.param(
        (UPDATED_4, QUEUED_6, 25.0),
        200,
        None,
        {"IPv4": (0, True)},
        id="one family alone",
    ),
]


@pytest.mark.parametrize(("steps", "status", "updated", "families"), TIMELINE)
@pytest.mark.parametrize("endpoint", ["healthz", "livez"])
def test_timeline(
    endpoint: str,
    steps: tuple[Step, ...],
    status: int,
    updated: int | None,
    families: dict[str, tuple[int, bool]],
) -> None:
    health, passed = play(*steps)
    now, wall = 100 + passed, BEGIN + passed
    expected: dict[str, object] = {
        "lastUpdated": at(passed if updated is None else updated),
        "currentTime": at(passed),
    }
    if endpoint == "healthz":
        answer = health.healthz(now=now, wall=wall, node_eligible=True)
        expected["nodeEligible"] = True
    else:
        answer = health.livez(now=now, wall=wall)
    expected["healthy"] = status == 200
    if families:
        expected["status"] = {name: family_health(*each) for name, each in families.items()}
    assert answer.status == status
    assert list(json.loads(answer.body).items()) == list(expected.items())
    assert health.healthy(now) is (status == 200)


def test_body_is_compact_and_ordered_as_go_writes_it() -> None:
    health, _ = play(UPDATED_6, 0.5, UPDATED_4)
    answer = health.healthz(now=0, wall=BEGIN + 2.25, node_eligible=True)
    assert answer.body == (
        b'{"lastUpdated":"2026-08-21T11:29:13.25Z","currentTime":"2026-08-21T11:29:13.25Z",'
        b'"nodeEligible":true,"healthy":true,"status":{'
        b'"IPv4":{"lastUpdated":"2026-08-21T11:29:11.5Z","healthy":true},'
        b'"IPv6":{"lastUpdated":"2026-08-21T11:29:11Z","healthy":true}}}'
    )
    assert answer.headers == {
        "Content-Type": "application/json",
        "X-Content-Type-Options": "nosniff",
    }


def test_not_eligible_turns_healthz_red_but_neither_livez_nor_healthy() -> None:
    health, _ = play(*BOTH_UPDATED)
    answer = health.healthz(now=125, wall=BEGIN + 25, node_eligible=False)
    body = json.loads(answer.body)
    assert answer.status == 503
    assert (body["nodeEligible"], body["healthy"]) == (False, True)
    assert body["lastUpdated"] == at(0), "the real last update, as for every 503"
    livez = health.livez(now=125, wall=BEGIN + 25)
    assert livez.status == 200
    assert "nodeEligible" not in json.loads(livez.body)


@pytest.mark.parametrize(
    ("unavailable_workers", "needs_restart", "healthz", "livez"),
    [
        pytest.param([], False, 200, 200, id="all serve"),
        pytest.param(["worker 0"], False, 503, 200, id="a restart would harm the others"),
        pytest.param(["worker 0"], True, 503, 503, id="none does, for long"),
    ],
)
def test_without_workers_nothing_is_healthy(
    unavailable_workers: list[str], needs_restart: bool, healthz: int, livez: int
) -> None:
    health = ProxyHealth(
        sync_period=5.0,
        unavailable_workers=lambda: unavailable_workers,
        needs_restart=lambda: needs_restart,
    )
    health.updated("IPv4", wall=1.0)
    answers = [
        health.healthz(now=2.0, wall=2.0, node_eligible=True),
        health.livez(now=2.0, wall=2.0),
    ]
    assert [each.status for each in answers] == [healthz, livez]
    healthy = [json.loads(each.body)["healthy"] for each in answers]
    assert healthy == [healthz == 200, livez == 200]
    assert list(health.problems(2.0)) == [
        Reason(ReasonKind.WORKER, each) for each in unavailable_workers
    ]


def test_never_updated_is_gos_zero_time() -> None:
    health, _ = play()
    answer = health.healthz(now=0, wall=BEGIN, node_eligible=False)
    assert json.loads(answer.body)["lastUpdated"] == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        pytest.param(BEGIN, "2026-08-21T11:29:11Z", id="no fraction"),
        pytest.param(BEGIN + 0.1, "2026-08-21T11:29:11.1Z", id="trailing zeros are cut"),
        pytest.param(BEGIN + 0.000001, "2026-08-21T11:29:11.000001Z", id="leading zeros stay"),
        pytest.param(BEGIN + 0.9999999, "2026-08-21T11:29:12Z", id="rounded up to the second"),
        pytest.param(0.0, "1970-01-01T00:00:00Z", id="epoch"),
    ],
)
def test_times_are_rfc_3339(wall: float, text: str) -> None:
    health, _ = play()
    assert json.loads(health.livez(now=0, wall=wall).body)["currentTime"] == text


def node(*taints: str, **metadata: str) -> Node:
    content: dict[str, Any] = {
        "metadata": {"name": "n1", **metadata},
        "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints]},
    }
    return msgspec.convert(content, Node)


@pytest.mark.parametrize(
    ("known", "watched", "eligible"),
    [
        pytest.param(node(), True, True, id="plain node"),
        pytest.param(node("other"), True, True, id="another taint"),
        pytest.param(node("node.kubernetes.io/unschedulable"), True, True, id="cordoned"),
        pytest.param(node("ToBeDeletedByClusterAutoscaler"), True, False, id="autoscaler taint"),
        pytest.param(
            node("other", "ToBeDeletedByClusterAutoscaler"), True, False, id="autoscaler taint too"
        ),
        pytest.param(
            node(deletionTimestamp="2026-08-21T11:29:11Z"), True, False, id="being deleted"
        ),
        pytest.param(None, True, False, id="unknown to the cluster"),
        pytest.param(None, False, True, id="no source of Nodes at all"),
        pytest.param(
            Node(metadata=node().metadata), True, True, id="taints absent rather than empty"
        ),
    ],
)
def test_node_eligible(known: Node | None, watched: bool, eligible: bool) -> None:
    facts = NodeFacts.of(known) if known is not None else NodeFacts(name="n1")
    reasons = list(not_eligible(facts, watched=watched, draining=False))
    assert (not reasons) is eligible
    assert list(not_eligible(facts, watched=watched, draining=True))


@pytest.mark.parametrize(
    ("candidates", "text"),
    [
        pytest.param(
            (),
            "the cluster has no Node n1: it was deleted, or this node has another name, to be set"
            " with --hostname-override",
            id="none",
        ),
        pytest.param(
            ("n1.example",),
            "the cluster has no Node n1, but n1.example has an address of this machine: set the"
            " name with --hostname-override",
            id="one",
        ),
        pytest.param(
            ("a", "b"),
            "the cluster has no Node n1, but a and b have an address of this machine: set the"
            " name with --hostname-override",
            id="two",
        ),
    ],
)
def test_a_name_that_no_node_has(candidates: Sequence[str], text: str) -> None:
    facts = NodeFacts(name="n1")
    [reason] = not_eligible(facts, watched=True, draining=False, candidates=candidates)
    assert reason.text == text


def test_what_is_late_is_said_as_long_as_healthz_is_red() -> None:
    health = ProxyHealth(sync_period=5.0)
    health.updated("IPv4", wall=BEGIN)
    health.updated("IPv6", wall=BEGIN)
    health.queued_update("IPv6", now=0)
    assert (health.healthy(9), list(health.problems(9))) == (True, [])
    assert not health.healthy(11)
    assert texts(health.problems(11)) == ["changes of IPv6 have been waiting to be served for 11 s"]


@pytest.mark.parametrize(
    ("endpoints", "healthy", "status"),
    [
        pytest.param(0, True, 503, id="no local endpoint"),
        pytest.param(1, True, 200, id="one"),
        pytest.param(18, True, 200, id="many"),
        pytest.param(18, False, 503, id="proxy unhealthy: the count stays"),
        pytest.param(0, False, 503, id="neither"),
    ],
)
def test_service_health(endpoints: int, healthy: bool, status: int) -> None:
    answer = service_health(ObjectName("ns", "n"), local_endpoints=endpoints, healthy=healthy)
    assert answer.status == status
    assert answer.headers == {
        "Content-Type": "application/json",
        "X-Content-Type-Options": "nosniff",
        "X-Load-Balancing-Endpoint-Weight": str(endpoints),
    }
    assert answer.body.decode() == (
        "{\n"
        '\t"service": {\n'
        '\t\t"namespace": "ns",\n'
        '\t\t"name": "n"\n'
        "\t},\n"
        f'\t"localEndpoints": {endpoints},\n'
        f'\t"serviceProxyHealthy": {"true" if healthy else "false"}\n'
        "}"
    )


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_service_health_is_fit_to_print(text: str) -> None:
    name = text.encode(errors="replace").decode()
    answer = service_health(ObjectName(name, name), local_endpoints=1, healthy=True)
    lines = answer.body.decode().split("\n")
    assert all(line.strip("\t").isprintable() for line in lines)
    assert msgspec.json.decode(answer.body)["service"] == {"namespace": name, "name": name}
