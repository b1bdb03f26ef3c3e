"""Which clients' addresses the backends of a route are to see."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import endpoint_slice, port, service, table
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.route import ClientIPMode, FrontendKind

AUTO, LOCAL, NEVER = ClientIPMode.AUTO, ClientIPMode.LOCAL, ClientIPMode.NEVER
WEB = ObjectName("default", "web")
ANNOTATION = "uproxy.dev/preserve-client-ip"
CLUSTER_IP, NODE_PORT = FrontendKind.CLUSTER_IP, FrontendKind.NODE_PORT
EXTERNAL_IP, INGRESS = FrontendKind.EXTERNAL_IP, FrontendKind.LOAD_BALANCER_IP
OUTSIDE = frozenset({NODE_PORT, EXTERNAL_IP, INGRESS})
EVERYWHERE = OUTSIDE | {CLUSTER_IP}
NOWHERE: frozenset[FrontendKind] = frozenset()


def found(
    policy: str, flag: ClientIPMode = AUTO, annotation: str | None = None, **spec: Any
) -> tuple[frozenset[FrontendKind], frozenset[FrontendKind], tuple[str, ...]]:
    """At which kinds of frontends clients from outside are shown, and pods; and the reasons."""
    made = table(
        service(
            "web",
            port(80, node_port=30080),
            annotations=None if annotation is None else {ANNOTATION: annotation},
            type="LoadBalancer",
            external_ips=("192.0.2.7",),
            ingress=("203.0.113.9",),
            external_traffic_policy=policy,
            **spec,
        ),
        endpoint_slice("web", "10.0.0.1"),
        preserve_client_ip=flag,
    )
    routes = made.routes.values()
    assert {each.kind for each in routes} == EVERYWHERE
    outside = frozenset(each.kind for each in routes if each.preserves_outside)
    pods = frozenset(each.kind for each in routes if each.preserves_pods)
    assert (WEB in made.preserves_outside) == bool(outside)
    assert (WEB in made.preserves_pods) == bool(pods)
    return outside, pods, made.services[WEB].reasons


@pytest.mark.parametrize("internal", ["Cluster", "Local"])
@pytest.mark.parametrize(
    ("policy", "mode", "outside", "pods"),
    [
        pytest.param("Cluster", AUTO, NOWHERE, {CLUSTER_IP}, id="Cluster, auto"),
        pytest.param("Cluster", LOCAL, NOWHERE, NOWHERE, id="Cluster, local"),
        pytest.param("Cluster", NEVER, NOWHERE, NOWHERE, id="Cluster, never"),
        pytest.param("Local", AUTO, OUTSIDE, EVERYWHERE, id="Local, auto"),
        pytest.param("Local", LOCAL, OUTSIDE, NOWHERE, id="Local, local"),
        pytest.param("Local", NEVER, NOWHERE, NOWHERE, id="Local, never"),
    ],
)
def test_the_mode_the_policy_and_the_kind_decide(
    policy: str,
    internal: str,
    mode: ClientIPMode,
    outside: frozenset[FrontendKind],
    pods: frozenset[FrontendKind],
) -> None:
    spec = {"internal_traffic_policy": internal}
    assert found(policy, mode, **spec) == (outside, pods, ())
    assert found(policy, AUTO, mode.value, **spec) == (outside, pods, ())


@pytest.mark.parametrize("flag", ClientIPMode)
@pytest.mark.parametrize("annotation", ClientIPMode)
def test_of_flag_and_annotation_the_stricter_one_counts(
    flag: ClientIPMode, annotation: ClientIPMode
) -> None:
    order = [AUTO, LOCAL, NEVER]
    stricter = order[max(order.index(flag), order.index(annotation))]
    assert found("Local", flag, annotation.value) == found("Local", stricter)


@pytest.mark.parametrize("value", ["", "Auto", "always", "true"])
@pytest.mark.parametrize("flag", ClientIPMode)
def test_an_annotation_with_another_value_is_a_reason_and_shows_no_client(
    flag: ClientIPMode, value: str
) -> None:
    outside, pods, reasons = found("Local", flag, value)
    assert (outside, pods) == (NOWHERE, NOWHERE)
    assert reasons == (
        f'annotation {ANNOTATION} is "{value}", so it counts as "never";'
        " use one of: auto, local, never",
    )
