"""What /api/v1/routes says, as a table."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.http.statuses import EMPTY, FULL, NODE_PORT
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.status import ApiServerStatus, FrontendState, Status
from uproxy.core.report.status_format import Filter, parse_filter, status_view

ZERO = {
    "flows": 0,
    "activeFlows": 0,
    "clientBytes": 0,
    "backendBytes": 0,
    "clientDatagrams": 0,
    "backendDatagrams": 0,
    "dialFailures": 0,
    "retries": 0,
    "masqueraded": 0,
    "dropped": {},
}
KUBIA_COUNTS = ZERO | {
    "flows": 7,
    "activeFlows": 2,
    "clientBytes": 100,
    "backendBytes": 2000,
    "dialFailures": 3,
    "retries": 1,
    "masqueraded": 6,
    "dropped": {"dial_failed": 1, "no_backend": 4},
}
FAILED = {
    "frontend": "10.96.0.7:80/TCP",
    "protocol": "TCP",
    "address": "10.96.0.7",
    "port": 80,
    "kind": "ClusterIP",
    "service": "default/kubia",
    "servicePort": "http",
    "state": "failed",
    "reason": "address 10.96.0.7 is not on this node",
    "backends": [],
    "localBackends": None,
    "sessionAffinity": None,
    "balancer": "random",
    "clientAddress": "node",
    "proxyProtocol": None,
    "counts": KUBIA_COUNTS,
    "failing": [],
    "noneAnswers": False,
    "clientAddressReason": "replies did not come back",
}
SERVING = {
    "frontend": "127.0.0.1:30123/TCP",
    "protocol": "TCP",
    "address": "127.0.0.1",
    "port": 30123,
    "kind": "NodePort",
    "service": "default/kubia",
    "servicePort": "http",
    "state": "serving",
    "reason": "",
    "backends": ["127.0.1.1:8080", "[fd00::2]:8080"],
    "localBackends": ["127.0.1.1:8080"],
    "sessionAffinity": {"timeoutSeconds": 10800},
    "balancer": "round-robin",
    "clientAddress": "preserved",
    "proxyProtocol": "v2",
    "counts": KUBIA_COUNTS,
    "failing": [],
    "noneAnswers": False,
    "clientAddressReason": "",
}
PAUSED = {
    "frontend": "[fd00::a]:53/UDP",
    "protocol": "UDP",
    "address": "fd00::a",
    "port": 53,
    "kind": "ClusterIP",
    "service": "kube-system/dns",
    "servicePort": "",
    "state": "paused",
    "reason": "",
    "backends": [],
    "localBackends": [],
    "sessionAffinity": None,
    "balancer": "round-robin",
    "clientAddress": "node",
    "proxyProtocol": None,
    "counts": ZERO | {"flows": 1, "clientDatagrams": 11, "backendDatagrams": 12},
    "failing": [],
    "noneAnswers": False,
    "clientAddressReason": "",
}
KUBIA_SERVICE = {"service": "default/kubia", "reason": "no ports"}
SCTP_SERVICE = {"service": "kube-system/sctp", "reason": "SCTP is not served"}
CHECK = {
    "service": "default/kubia",
    "port": 32000,
    "counts": {"IPv4": 1, "IPv6": 0},
    "reason": "",
}


def shown(
    status: Status, wanted: Filter, labels: dict[ObjectName, dict[str, str]] | None = None
) -> dict[str, Any]:
    view = status_view(status, wanted, labels or {})
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(view))
    return decoded


def test_everything_in_its_order() -> None:
    assert list(shown(FULL, Filter()).items()) == [
        ("node", "node-1"),
        ("synced", True),
        ("frontends", [FAILED, SERVING, PAUSED]),
        ("services", [KUBIA_SERVICE, SCTP_SERVICE]),
        (
            "objects",
            [
                {"where": "a.yaml:9", "field": "", "reason": "not a mapping"},
                {"where": "b.yaml:3", "field": "spec.ports[0].port", "reason": "expected int"},
            ],
        ),
        (
            "workers",
            [
                {
                    "index": 0,
                    "pid": 4711,
                    "restarts": 1,
                    "activeFlows": 4,
                    "engine": "io_uring",
                    "reason": "",
                },
                {
                    "index": 1,
                    "pid": 4712,
                    "restarts": 2,
                    "activeFlows": 5,
                    "engine": "epoll",
                    "reason": "",
                },
            ],
        ),
        ("healthChecks", [CHECK]),
        ("notReady", ["10.96.0.7:80/TCP: address 10.96.0.7 is not on this node"]),
        ("clientAddressReason", "IPv6: needs CAP_NET_ADMIN"),
        ("notHealthy", []),
        ("notes", []),
        ("apiServers", [_api_server(each) for each in FULL.api_servers]),
        ("loadBalancer", None),
        ("ports", None),
        ("connectBuckets", None),
    ]


def test_the_keys_of_a_frontend_keep_their_order() -> None:
    (frontend,) = shown(FULL, Filter(state="serving"))["frontends"]
    assert list(frontend) == list(SERVING)
    assert list(frontend["counts"]) == list(ZERO)


def test_a_degraded_frontend_names_backends_that_do_not_answer() -> None:
    degraded = msgspec.structs.replace(
        FULL.frontends[1], state=FrontendState.DEGRADED, failing=FULL.frontends[1].backends
    )
    status = msgspec.structs.replace(FULL, frontends=(degraded,))
    (frontend,) = shown(status, Filter(state="degraded"))["frontends"]
    assert frontend["failing"] == frontend["backends"] == ["127.0.1.1:8080", "[fd00::2]:8080"]


def _api_server(server: ApiServerStatus) -> dict[str, object]:
    return {
        "address": server.address,
        "origin": server.origin,
        "inUse": server.in_use,
        "reason": server.reason,
    }


def test_before_the_first_sync() -> None:
    assert shown(EMPTY, Filter()) == {
        "node": "",
        "synced": False,
        "frontends": [],
        "services": [],
        "objects": [],
        "workers": [],
        "healthChecks": [],
        "notReady": ["waiting for the first list of Services"],
        "clientAddressReason": "",
        "notHealthy": [],
        "notes": [],
        "apiServers": [],
        "loadBalancer": None,
        "ports": None,
        "connectBuckets": None,
    }


def test_order_does_not_depend_on_the_order_of_the_status() -> None:
    turned = msgspec.structs.replace(
        FULL,
        frontends=FULL.frontends[::-1],
        services=FULL.services[::-1],
        objects=FULL.objects[::-1],
        workers=FULL.workers[::-1],
    )
    assert shown(turned, Filter()) == shown(FULL, Filter())


def test_ports_sort_as_numbers() -> None:
    one = NODE_PORT.frontend._replace(port=9000)
    status = msgspec.structs.replace(
        FULL, frontends=(NODE_PORT, msgspec.structs.replace(NODE_PORT, frontend=one))
    )
    ports = [each["port"] for each in shown(status, Filter())["frontends"]]
    assert ports == [9000, 30123]


def test_a_service_port_without_counts_has_zeros() -> None:
    status = msgspec.structs.replace(FULL, counters={})
    assert [each["counts"] for each in shown(status, Filter())["frontends"]] == [ZERO] * 3


@pytest.mark.parametrize(
    ("wanted", "frontends", "services", "checks"),
    [
        pytest.param(
            Filter(namespace="default"), [FAILED, SERVING], [KUBIA_SERVICE], [CHECK], id="namespace"
        ),
        pytest.param(Filter(service="dns"), [PAUSED], [], [], id="service"),
        pytest.param(
            Filter(namespace="kube-system", service="sctp"), [], [SCTP_SERVICE], [], id="both"
        ),
        pytest.param(Filter(namespace="default", service="dns"), [], [], [], id="both must match"),
        pytest.param(
            Filter(state="failed"),
            [FAILED],
            [KUBIA_SERVICE, SCTP_SERVICE],
            [CHECK],
            id="state is about frontends",
        ),
        pytest.param(
            Filter(namespace="default", service="kubia", state="serving"),
            [SERVING],
            [KUBIA_SERVICE],
            [CHECK],
            id="all three",
        ),
        pytest.param(Filter(namespace="nowhere"), [], [], [], id="no such namespace"),
        pytest.param(Filter(labels="tier in (infra, db)"), [PAUSED], [], [], id="labels"),
        pytest.param(
            Filter(labels="app!=dns", state="serving"),
            [SERVING],
            [KUBIA_SERVICE, SCTP_SERVICE],
            [CHECK],
            id="Services without labels, too",
        ),
        pytest.param(Filter(namespace="default", labels="app=dns"), [], [], [], id="both"),
    ],
)
def test_filter(
    wanted: Filter, frontends: list[object], services: list[object], checks: list[object]
) -> None:
    labels = {ObjectName("kube-system", "dns"): {"app": "dns", "tier": "infra"}}
    view = shown(FULL, wanted, labels)
    assert view["frontends"] == frontends
    assert view["services"] == services
    assert view["healthChecks"] == checks
    assert len(view["objects"]) == len(view["workers"]) == 2, "these belong to no Service"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        pytest.param({}, Filter(), id="none"),
        pytest.param({"state": ""}, Filter(), id="empty value"),
        pytest.param({"namespace": "a", "service": "b"}, Filter("a", "b"), id="names"),
        pytest.param({"state": "conflict"}, Filter(state="conflict"), id="state"),
        pytest.param({"labels": "!canary"}, Filter(labels="!canary"), id="labels"),
    ],
)
def test_parse_filter(query: dict[str, str], wanted: Filter) -> None:
    assert parse_filter(query) == wanted


@pytest.mark.parametrize(
    ("query", "message"),
    [
        pytest.param(
            {"stat": "failed"},
            "unknown parameter 'stat': use namespace, service, state, labels, backends",
            id="parameter",
        ),
        pytest.param(
            {"backends": "yes"}, "backends=yes makes no sense: use backends=1", id="backends"
        ),
        pytest.param(
            {"state": "broken"},
            f"unknown state 'broken': use one of {', '.join(FrontendState)}",
            id="state",
        ),
        pytest.param(
            {"labels": "app is web"},
            '"app is web" is not a label selector; give one like app=web,tier in (a,b),!canary',
            id="labels",
        ),
    ],
)
def test_parse_filter_says_what_is_right(query: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=r"unknown|not a label|no sense") as caught:
        parse_filter(query)
    assert str(caught.value) == message
