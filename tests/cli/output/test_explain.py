"""What `uproxy explain` prints about a Service, and what it suggests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.views import (
    affinity,
    backend,
    counts,
    frontend,
    health_check,
    not_served,
    port,
    status,
)
from uproxy.cli.output.explain import explanation, verdict
from uproxy.cli.output.hints import drop_meaning, hints
from uproxy.core.flows.counters import DropReason
from uproxy.core.report.status import ObjectStatus
from uproxy.core.report.status_format import FrontendView
from uproxy.core.routing.derive import NOWHERE
from uproxy.host.claims import NEVER, UNPRIVILEGED

WEB = "default/web"
TWO = ["10.0.0.1:8080", "10.0.0.2:8080"]
ABSENT = "address 192.0.2.7 is not on this node"
ONE_OF_3 = "1 of 3 backends does not answer: web-1 (10.0.0.1:8080)"


def test_a_service_that_is_served() -> None:
    busy = counts(flows=12, active_flows=2, client_bytes=1200, backend_bytes=34_000)
    view = status(
        frontends=[
            frontend(kind="ClusterIP", address="10.96.0.7", port=80, backends=TWO, counts=busy),
            frontend(backends=TWO, counts=busy),
        ],
        ports=[port(*map(backend, TWO))],
    )
    assert list(explanation(view, WEB)) == [
        "default/web is served on all of its 2 frontends.",
        "",
        "Port http/TCP",
        "  FRONTEND             KIND       STATE    BACKENDS  REASON",
        "  10.96.0.7:80/TCP     ClusterIP  serving         2",
        "  127.0.0.1:30080/TCP  NodePort   serving         2",
        "",
        "  Balancer  round-robin",
        "  Affinity  none",
        "  Clients   backends see this node's address",
        "  Flows     12 so far, 2 active; 1.2 kB from clients, 34 kB to them",
        "",
        "  ADDRESS        STATE  FLOWS  ACTIVE  FAILED  REMARKS",
        "  10.0.0.1:8080  used       0       0       0",
        "  10.0.0.2:8080  used       0       0       0",
    ]


def test_external_traffic_policy_local() -> None:
    check = health_check(WEB, 1)
    view = status(
        frontends=[
            frontend(kind="ClusterIP", address="10.96.0.7", port=80, backends=TWO),
            frontend(backends=TWO, local_backends=TWO[:1], session_affinity=affinity(600)),
        ],
        health_checks=[check],
        ports=[port(backend(TWO[0]), backend(TWO[1], state="inside only", reason="elsewhere"))],
    )
    text = "\n".join(explanation(view, WEB))
    assert "NodePort   serving       1/2\n" in text
    assert (
        "  10.0.0.1:8080  used             0       0       0\n"
        "  10.0.0.2:8080  inside only      0       0       0  elsewhere\n"
        "\n"
        "Health check:  port 32000  answers 200: 1 local endpoint"
    ) in text
    assert "What to do" not in text


def test_each_port_has_its_own_section() -> None:
    view = status(
        frontends=[
            frontend(service_port="dns", protocol="UDP", counts=counts(client_datagrams=5)),
            frontend(service_port="dns", protocol="TCP"),
            frontend(service_port="", port=30081),
        ]
    )
    lines = list(explanation(view, WEB))
    assert [line for line in lines if line.startswith("Port ")] == [
        "Port dns/UDP",
        "Port dns/TCP",
        "Port (unnamed)/TCP",
    ]
    assert [line.rpartition("(")[2] for line in lines if "datagrams" in line] == [
        "5 and 0 datagrams)"
    ]


def test_failures_are_counted_and_explained() -> None:
    troubled = counts(flows=5, dial_failures=1, retries=3, dropped={"dial_failed": 2, "newer": 1})
    lines = list(explanation(status(frontends=[frontend(counts=troubled)]), WEB))
    text = "\n".join(lines)
    assert "; 1 failed dial, 3 retried" in text
    assert "  Dropped   2 dial_failed: no backend could be reached" in text
    assert "  Dropped   1 newer" in lines
    assert "  Bad ends  their clients, pods and reasons: uproxy flows --bad default/web" in lines


def test_what_has_no_failures_does_not_lead_to_them() -> None:
    lines = explanation(status(frontends=[frontend(counts=counts(flows=5))]), WEB)
    assert not any("uproxy flows" in line for line in lines)


def test_a_reason_that_ends_with_a_question_gets_no_full_stop() -> None:
    view = status(frontends=[frontend()], services=[not_served(WEB, "x is odd; did you mean y?")])
    assert list(explanation(view, WEB))[1] == "But: x is odd; did you mean y?"


def test_a_service_that_is_served_in_part_says_why() -> None:
    view = status(
        frontends=[frontend()],
        services=[not_served(WEB, "externalIP 192.0.2.9 is not an address of this node")],
        objects=[
            ObjectStatus(where=f"Service {WEB}", field="spec.ports", reason="is no list"),
            ObjectStatus(where="Service default/other", field="", reason="another matter"),
        ],
    )
    assert list(explanation(view, WEB))[:4] == [
        "default/web is served on its only frontend.",
        "But: externalIP 192.0.2.9 is not an address of this node.",
        "Its newest version cannot be used: spec.ports: is no list.",
        "",
    ]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        pytest.param(
            {"services": [not_served(WEB, "spec.ports is empty")]},
            "default/web is not served: spec.ports is empty.",
            id="a reason of its own",
        ),
        pytest.param(
            {"frontends": [frontend(), frontend(state="paused"), frontend(state="failed")]},
            "default/web is served on 1 of 3 frontends.",
            id="in part",
        ),
        pytest.param(
            {"frontends": [frontend(state="degraded", none_answers=True)]},
            "default/web is open, but no backend answers on its only frontend.",
            id="nobody answers",
        ),
        pytest.param(
            {"frontends": [frontend(state="degraded", none_answers=True)] * 2},
            "default/web is open, but no backend answers on any of its 2 frontends.",
            id="nobody answers on two ports",
        ),
        pytest.param(
            {
                "frontends": [
                    frontend(state="degraded", none_answers=True),
                    frontend(state="serving"),
                ]
            },
            "default/web is open, but no backend answers on 1 of its 2 frontends.",
            id="nobody answers on one of two ports",
        ),
        pytest.param(
            {"frontends": [frontend(state="degraded", reason=ONE_OF_3)] * 2},
            f"default/web is served on all of its 2 frontends, but {ONE_OF_3}.",
            id="one of three does not answer",
        ),
        pytest.param(
            {"frontends": [frontend(state="paused")]},
            "default/web is not served on its frontend.",
            id="its only one is paused",
        ),
        pytest.param(
            {"frontends": [frontend(state="paused")] * 2},
            "default/web is not served on any frontend.",
            id="all are paused",
        ),
    ],
)
def test_verdict(parts: dict[str, Any], sentence: str) -> None:
    assert verdict(status(**parts), WEB) == sentence


def test_backends_that_do_not_answer_are_named() -> None:
    """They come first, because not all backends may be shown."""
    many = [f"10.0.0.{number}:8080" for number in range(100)]
    degraded = frontend(
        state="degraded", backends=many, failing=["10.0.0.98:8080"], none_answers=True
    )
    view = status(frontends=[degraded], ports=[port(*map(backend, many))])
    lines = list(explanation(view, WEB))
    assert [line.split() for line in lines if "does not answer" in line] == [
        ["10.0.0.98:8080", "used", "0", "0", "0", "does", "not", "answer"]
    ]
    advice = "\n".join(lines[lines.index("What to do:") :])
    assert "Do the pods listen on port 8080" in advice
    assert "nc -zv 10.0.0.98 8080" in advice


def test_the_pod_that_fails_is_named() -> None:
    failing = backend(
        "10.0.0.1:8080", pod="web-1", failures={"ECONNREFUSED": 48}, last_error="ECONNREFUSED"
    )
    degraded = frontend(
        state="degraded",
        backends=["10.0.0.1:8080", "10.0.0.2:8080"],
        failing=["10.0.0.1:8080"],
        counts=counts(dial_failures=48, retries=40),
    )
    ports = [port(failing, backend("10.0.0.2:8080", pod="web-2"))]
    lines = list(explanation(status(frontends=[degraded], ports=ports), WEB))
    text = "\n".join(lines)
    assert "48 failed dials (web-1: 48), 40 retried" in text
    assert "kubectl describe pod -n default web-1. Try it from this node: nc -zv 10.0.0.1" in text


def test_names_of_pods_in_suggested_commands_are_quoted() -> None:
    degraded = frontend(state="degraded", failing=["10.0.0.1:8080"])
    ports = [port(backend("10.0.0.1:8080", pod="$(reboot)"))]
    text = "\n".join(explanation(status(frontends=[degraded], ports=ports), WEB))
    assert "kubectl describe pod -n default '$(reboot)'" in text


def test_names_in_suggested_commands_are_quoted() -> None:
    """A name may be meant to do harm in a shell."""
    odd = "de;fault/$(reboot)"
    paused = frontend(odd, state="paused", reason="no ready endpoints")
    degraded = frontend(odd, state="degraded", failing=["`reboot`:80;reboot"], none_answers=True)
    text = "\n".join(explanation(status(frontends=[paused, degraded]), odd))
    assert "kubectl get pods -n 'de;fault' -o wide" in text
    assert "-l kubernetes.io/service-name='$(reboot)'" in text
    assert "nc -zv '`reboot`' '80;reboot'" in text


def test_many_backends_are_cut_short() -> None:
    many = [f"10.0.{number // 250}.{number % 250}:80" for number in range(1000)]
    ports = [port(*map(backend, many))]
    lines = list(explanation(status(frontends=[frontend(backends=many)], ports=ports), WEB))
    assert len(lines) < 40
    assert lines[-1] == "  ... and 980 more: -o json"


@pytest.mark.parametrize(
    ("parts", "not_preserved", "text"),
    [
        pytest.param({}, "no nft", "backends see this node's address", id="policy Cluster"),
        pytest.param(
            {"local_backends": TWO},
            "no nft",
            "backends see this node's address, not the client's: no nft",
            id="policy Local, and it cannot be done",
        ),
        pytest.param(
            {"local_backends": TWO, "client_address": "preserved"},
            "",
            "backends see the addresses of clients from outside",
            id="preserved",
        ),
        pytest.param(
            {"client_address": "pods"},
            "",
            "backends see the addresses of this node's pods at the ClusterIP",
            id="pods",
        ),
        pytest.param(
            {"client_address": "node", "client_address_reason": "it went astray"},
            "",
            "backends see this node's address, not the client's: it went astray",
            id="not what the Service asks for",
        ),
        pytest.param(
            {"client_address": "preserved", "client_address_reason": "it went astray"},
            "",
            "backends see the addresses of clients from outside,"
            " but not all that the Service asks for: it went astray",
            id="not all that the Service asks for",
        ),
        pytest.param(
            {"proxy_protocol": "v2"},
            "no nft",
            "backends get the client's address in a PROXY header (v2)",
            id="PROXY protocol",
        ),
    ],
)
def test_what_backends_see(parts: dict[str, Any], not_preserved: str, text: str) -> None:
    view = status(frontends=[frontend(**parts)], client_address_reason=not_preserved)
    assert f"  Clients   {text}" in list(explanation(view, WEB))


SLICES = "kubectl get endpointslices -n default -l kubernetes.io/service-name=web"


@pytest.mark.parametrize(
    ("each", "words"),
    [
        pytest.param(frontend(), [], id="serving"),
        pytest.param(
            frontend(state="paused", reason="no endpoints"),
            ["spec.selector", SLICES],
            id="no endpoints",
        ),
        pytest.param(
            frontend(state="paused", reason="no ready endpoints"),
            ["kubectl get pods -n default", SLICES],
            id="no ready endpoints",
        ),
        pytest.param(
            frontend(
                state="paused",
                reason="internalTrafficPolicy is Local and this node has no endpoint",
            ),
            ["set the policy to Cluster", SLICES],
            id="internal policy Local",
        ),
        pytest.param(
            frontend(
                state="paused", reason="annotation uproxy.dev/proxy-protocol has a wrong value"
            ),
            ["v1 or v2", "kubectl annotate -n default service web --overwrite uproxy.dev/proxy"],
            id="an annotation",
        ),
        pytest.param(
            frontend(local_backends=[]), ["only pods on other nodes"], id="external policy Local"
        ),
        pytest.param(
            frontend(state="failed", reason="TCP port 30080 on 0.0.0.0 is already in use by x"),
            ["ss -Hptln 'sport = :30080'"],
            id="TCP port in use",
        ),
        pytest.param(
            frontend(
                state="failed", protocol="UDP", reason="UDP port 53 is already in use by another"
            ),
            ["ss -Hpuln 'sport = :30080'"],
            id="UDP port in use",
        ),
        pytest.param(
            frontend(
                state="failed", port=80, reason="TCP port 80 needs root or CAP_NET_BIND_SERVICE"
            ),
            ["ip_unprivileged_port_start=80"],
            id="low port",
        ),
        pytest.param(
            frontend(state="failed", reason="out of file descriptors or memory"),
            ["LimitNOFILE"],
            id="descriptors",
        ),
        pytest.param(frontend(state="failed", reason="odd"), [], id="nothing to say"),
        pytest.param(
            frontend(state="elsewhere", address="192.0.2.7", reason=f"{ABSENT}, and {NEVER}"),
            ["192.0.2.7", "--claim-addresses auto"],
            id="an address that is not claimed",
        ),
        pytest.param(
            frontend(
                state="elsewhere", address="192.0.2.7", reason=f"{ABSENT}, and {UNPRIVILEGED}"
            ),
            ["192.0.2.7", "CAP_NET_ADMIN"],
            id="an address that may not be claimed",
        ),
        pytest.param(
            frontend(state="elsewhere", address="192.0.2.7", reason="node n2 announces it"),
            [],
            id="an address that another node announces",
        ),
        pytest.param(
            frontend(
                state="elsewhere",
                address="192.0.2.7",
                reason=f"{ABSENT}, and another uproxy claims the addresses of this node",
            ),
            [],
            id="an address that another uproxy claims",
        ),
        pytest.param(
            frontend(state="conflict"), ["a port other than 30080", "older"], id="conflict"
        ),
        pytest.param(
            frontend(counts=counts(dial_failures=2)), ["readinessProbe"], id="dead backends"
        ),
        pytest.param(
            frontend(
                reason="backends that are frontends of uproxy itself are left out: 127.0.0.1:1"
            ),
            ["loop"],
            id="loop",
        ),
    ],
)
def test_hints(each: FrontendView, words: list[str]) -> None:
    found = hints(WEB, [each, each], [])
    assert len(found) == bool(words)
    assert [word for word in words if word not in found[0]] == []


def test_hint_for_a_health_check_port() -> None:
    nowhere = health_check(WEB, 1, "no address of this node is in --nodeport-addresses")
    (hint,) = hints(WEB, [], [health_check(WEB, 1), nowhere, health_check(WEB, 1, "in use")])
    assert "ss -Hptln 'sport = :32000'" in hint


def test_hint_for_a_service_that_has_no_address() -> None:
    view = status(services=[not_served(WEB, NOWHERE)])
    said, empty, title, hint = explanation(view, WEB)
    assert (said, empty, title) == (f"{WEB} is not served: {NOWHERE}.", "", "What to do:")
    assert "type NodePort" in hint
    assert "--lb" in hint


@pytest.mark.parametrize("reason", list(DropReason))
def test_every_drop_reason_has_a_meaning(reason: DropReason) -> None:
    assert drop_meaning(reason.value)
