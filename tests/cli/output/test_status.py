"""What `uproxy status` prints, line by line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.views import affinity, counts, frontend, health_check, not_served, status
from tests.http.statuses import EMPTY, FULL
from uproxy.cli.output.columns import plain
from uproxy.cli.output.status import frontend_table, overview, readiness, summary, urgency
from uproxy.core.report.status import FrontendState, ObjectStatus, WorkerStatus
from uproxy.core.report.status_format import Filter, status_view

KUBIA = frontend("default/kubia", counts=counts(active_flows=1234))


def test_a_status_with_all_sections_in_a_pipe() -> None:
    assert list(overview(status_view(FULL, Filter()))) == [
        "Node node-1: not ready; 3 frontends (1 serving, 1 paused, 1 failed), 9 active flows, "
        "2 workers.",
        "",
        "Not ready:",
        "  10.96.0.7:80/TCP: address 10.96.0.7 is not on this node",
        "",
        "SERVICE          KIND       FRONTEND             STATE    BACKENDS  FLOWS  REASON",
        "default/kubia    ClusterIP  10.96.0.7:80/TCP     failed          0      2  "
        "address 10.96.0.7 is not on this node",
        "default/kubia    NodePort   127.0.0.1:30123/TCP  serving       1/2      2",
        "kube-system/dns  ClusterIP  [fd00::a]:53/UDP     paused        0/0      0",
        "",
        "Not served, or only in part:",
        "  default/kubia     no ports",
        "  kube-system/sctp  SCTP is not served",
        "",
        "Cannot be used:",
        "  a.yaml:9:  not a mapping",
        "  b.yaml:3:  spec.ports[0].port: expected int",
        "",
        "Health checks:",
        "  default/kubia  port 32000  answers 200: 1 local endpoint",
        "",
        "API server:",
        "  https://192.0.2.1:6443  connection refused  from --apiserver-address",
        "  https://192.0.2.2:6443  in use              from kubelet's kubeconfig k",
        "  https://10.96.0.1:443   in reserve          from the environment of this Pod",
        "",
        "Workers:",
        "  0  pid 4711  4 active flows  uses io_uring  replaced 1 time",
        "  1  pid 4712  5 active flows  uses epoll     replaced 2 times",
    ]


def test_a_worker_that_does_not_serve_says_why() -> None:
    worker = WorkerStatus(
        index=0, pid=7, restarts=1, active_flows=0, reason="has not answered for 6 s"
    )
    line = list(overview(status(workers=[worker])))[-1]
    assert line.split("  ")[-1] == "replaced 1 time; has not answered for 6 s"


def test_an_empty_status() -> None:
    assert list(overview(status_view(EMPTY, Filter()))) == [
        "Node : not ready; 0 frontends, 0 active flows, 0 workers.",
        "",
        "Not ready:",
        "  waiting for the first list of Services",
    ]


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        pytest.param(
            {"frontends": [KUBIA]},
            "Node node-1: ready; 1 frontend, 3 active flows, 1 worker.",
            id="all serving: no need to say so",
        ),
        pytest.param(
            {"frontends": [frontend(state="paused")] * 2},
            "Node node-1: ready; 2 frontends (2 paused), 3 active flows, 1 worker.",
            id="none serving",
        ),
        pytest.param(
            {"frontends": [], "workers": []},
            "Node node-1: ready; 0 frontends, 0 active flows, 0 workers.",
            id="none at all",
        ),
    ],
)
def test_summary(parts: dict[str, Any], line: str) -> None:
    assert summary(status(**parts)) == line


def test_wide_names_ports_balancers_affinity_and_endpoints() -> None:
    local = frontend(
        "default/kubia",
        backends=["10.0.0.1:8080", "10.0.0.2:8080"],
        local_backends=["10.0.0.2:8080"],
        session_affinity=affinity(600),
    )
    plain_one = frontend("default/web", service_port="", backends=[], state="paused", reason="no")
    _, *lines = frontend_table([local, plain_one], wide=True)
    assert [" ".join(line.split()) for line in lines] == [
        "SERVICE KIND FRONTEND STATE BACKENDS FLOWS BALANCER AFFINITY ENDPOINTS REASON",
        "default/kubia:http NodePort 127.0.0.1:30080/TCP serving 1/2 0 round-robin ClientIP 600s "
        "10.0.0.1:8080,10.0.0.2:8080*",
        "default/web NodePort 127.0.0.1:30080/TCP paused 0 0 round-robin - - no",
    ]


def test_eighty_columns_are_enough() -> None:
    long = frontend(
        "monitoring/kube-prometheus-stack-prometheus-node-exporter",
        address="fd00:10:96::1:8f2c",
        frontend="[fd00:10:96::1:8f2c]:30080/TCP",
        kind="LoadBalancerIP",
        state="paused",
        reason="externalTrafficPolicy is Local and this node has no ready endpoint; only this node "
        "and its pods are served",
    )
    view = status(
        frontends=[KUBIA, long],
        services=[
            not_served(
                "default/external",
                "type is ExternalName; clients reach it through DNS",
            )
        ],
        objects=[
            ObjectStatus(
                where="/etc/uproxy/manifests/web.yaml:31",
                field="spec.ports[0].port",
                reason='expected a whole number, found "eighty"',
            )
        ],
        health_checks=[
            health_check(
                "default/kubia", 0, "TCP port 32000 on 0.0.0.0 is already in use by another process"
            )
        ],
        not_ready=[f"default/kubia: {text}" for text in ("one two three four " * 6,)],
    )
    lines = list(overview(view, width=80))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for word in ("ExternalName", '"eighty"', "[fd00:10:96::1:8f2c]:30080/TCP", "another"):
        assert word in text


def test_reasons_of_healthz_are_shown() -> None:
    """A node that the cluster does not know serves clients, but load balancers use other nodes."""
    lines = list(overview(status(not_healthy=["the cluster has no Node here"])))
    assert lines[0].startswith("Node node-1: not healthy; ")
    assert "  the cluster has no Node here" in lines


def test_notes_do_not_mean_that_it_is_not_ready() -> None:
    lines = list(overview(status(notes=["cannot watch services: connection refused"])))
    assert lines[0].startswith("Node node-1: ready; ")
    assert lines[2:4] == ["Notes:", "  cannot watch services: connection refused"]


@pytest.mark.parametrize(
    ("not_ready", "not_healthy", "word"),
    [
        ([], [], "ready"),
        (["x"], [], "not ready"),
        ([], ["x"], "not healthy"),
        (["x"], ["x"], "not ready"),
    ],
)
def test_ready_means_that_both_endpoints_succeed(
    not_ready: list[str], not_healthy: list[str], word: str
) -> None:
    assert readiness(status(not_ready=not_ready, not_healthy=not_healthy)) == word


def test_many_reasons_are_cut_short() -> None:
    lines = list(overview(status(not_ready=[f"reason {number}" for number in range(10_000)])))
    assert lines[3:9] == [
        *(f"  reason {number}" for number in range(5)),
        "  ... and 9,995 more reasons",
    ]


def test_problems_first() -> None:
    frontends = [frontend(state=state.value) for state in FrontendState]
    assert [each.state for each in sorted(frontends, key=urgency)] == [
        "failed",
        "degraded",
        "conflict",
        "pending",
        "paused",
        "elsewhere",
        "serving",
    ]
    assert urgency(frontend(state="of a later version")) > urgency(frontend())


def test_a_health_check_that_is_not_open() -> None:
    view = status(
        health_checks=[health_check("default/a", 1, "port taken"), health_check("default/b", 0)]
    )
    assert list(overview(view, paint=plain))[2:6] == [
        "Health checks:",
        "  default/a  port 32000  port taken",
        "  default/b  port 32000  answers 503: 0 local endpoints",
        "",
    ]


def test_a_worker_that_was_never_replaced() -> None:
    worker = WorkerStatus(index=0, pid=1, restarts=0, active_flows=1)
    assert list(overview(status(workers=[worker])))[-1] == "  0  pid 1  1 active flow"


def test_a_worker_that_may_open_too_few_files() -> None:
    worker = WorkerStatus(index=0, pid=1, restarts=0, active_flows=1, most_flows=1234)
    last = list(overview(status(workers=[worker])))[-1]
    assert last == "  0  pid 1  1 active flow, 1,234 at most"
