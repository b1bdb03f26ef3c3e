"""What the demo prints about Services, and which commands it suggests."""

from __future__ import annotations

import pytest

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.status import FrontendState, FrontendStatus, ServiceStatus, Status
from uproxy.core.route import Backend, Frontend, FrontendKind, ServicePortName
from uproxy.demo import instructions
from uproxy.demo.backends import Missing, Pod

PODS = (Backend("127.0.0.11", 9000), Backend("127.0.0.12", 9000))


def frontend(
    at: Frontend,
    kind: FrontendKind = FrontendKind.NODE_PORT,
    name: str = "web",
    port: str = "http",
    state: FrontendState = FrontendState.SERVING,
    reason: str = "",
    backends: tuple[Backend, ...] = PODS,
    affinity: int = 0,
) -> FrontendStatus:
    return FrontendStatus(
        frontend=at,
        kind=kind,
        owner=ServicePortName("default", name, port, at.protocol),
        state=state,
        reason=reason,
        backends=backends,
        affinity_timeout=affinity,
    )


def status(*frontends: FrontendStatus, services: tuple[ServiceStatus, ...] = ()) -> Status:
    return Status(
        node="here",
        synced=True,
        frontends=frontends,
        services=services,
        objects=(),
        workers=(),
        health_checks=(),
        counters={},
        not_ready=(),
    )


HERE = Frontend("TCP", "127.0.0.1", 30080)
CLUSTER = Frontend("TCP", "127.96.0.1", 80)


def test_a_cluster_ip_is_shown_if_there_is_no_other_way() -> None:
    cluster = frontend(CLUSTER, FrontendKind.CLUSTER_IP)
    other = frontend(CLUSTER, FrontendKind.CLUSTER_IP, name="internal")
    found = instructions.rows(status(frontend(HERE), cluster, other))
    assert [(row.service, row.kind) for row in found] == [
        ("default/internal", "ClusterIP"),
        ("default/web", "NodePort"),
    ]


@pytest.mark.parametrize(
    ("one", "command", "expectation"),
    [
        pytest.param(frontend(HERE), "curl http://127.0.0.1:30080", "any of 2 pods", id="HTTP"),
        pytest.param(
            frontend(HERE, backends=PODS[:1]), "curl http://127.0.0.1:30080", "1 pod", id="one pod"
        ),
        pytest.param(
            frontend(Frontend("TCP", "::1", 80)),
            "curl 'http://[::1]:80'",
            "any of 2 pods",
            id="IPv6",
        ),
        pytest.param(
            frontend(HERE, affinity=60),
            "curl http://127.0.0.1:30080",
            "always the same pod",
            id="affinity",
        ),
        pytest.param(
            frontend(Frontend("UDP", "127.0.0.1", 9), port="echo"),
            "echo hello | nc -u -w 1 127.0.0.1 9",
            "any of 2 pods",
            id="UDP",
        ),
        pytest.param(
            frontend(Frontend("UDP", "127.0.0.1", 53), port="dns"),
            "dig +short +notcp @127.0.0.1 -p 53 TXT pod",
            "DNS over UDP",
            id="DNS",
        ),
    ],
)
def test_suggestions(one: FrontendStatus, command: str, expectation: str) -> None:
    assert instructions.suggestions(status(one)) == [instructions.Suggestion(command, expectation)]


def test_what_is_not_served_has_no_command() -> None:
    failed = frontend(HERE, state=FrontendState.FAILED, reason="in use")
    assert instructions.suggestions(status(failed)) == []
    assert [row.state for row in instructions.rows(status(failed))] == ["failed: in use"]
    assert instructions.service_to_explain(status(failed)) == ""


def test_many_services_do_not_fill_the_screen() -> None:
    many = [frontend(HERE._replace(port=port), name=f"web-{port}") for port in range(30000, 30100)]
    rows, more = instructions.first_rows(status(*many))
    assert (len(rows), more) == (40, 60)
    assert len(instructions.suggestions(status(*many))) == 20
    assert instructions.service_to_explain(status(*many)) == "default/web-30000"


def test_reasons_why_services_are_not_served() -> None:
    services = tuple(
        ServiceStatus(service=ObjectName("default", name), reason="it is so")
        for name in ("web", "gone")
    )
    assert list(instructions.not_served(status(frontend(HERE), services=services))) == [
        "default/gone is not served: it is so",
        "default/web is served in part: it is so",
    ]


def test_pods_without_a_backend_are_named_by_reason() -> None:
    pods = [Pod("x", f"10.0.0.{number}", 80, "TCP", False) for number in range(1, 5)]
    missing = {each: Missing(0, "it is far") for each in pods}
    missing[Pod("x", "::1", 80, "UDP", False)] = Missing(0, "it is taken")
    assert list(instructions.without_backends(missing)) == [
        "No backend for 10.0.0.1:80/TCP, 10.0.0.2:80/TCP and 2 more: it is far.",
        "No backend for [::1]:80/UDP: it is taken.",
    ]
