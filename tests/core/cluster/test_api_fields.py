"""Which fields of manifests are found to be misspelt, and that the table has those of the API."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_asyncio.client.models as models
import pytest

from uproxy.core.cluster.api_fields import types, unknown_fields
from uproxy.core.cluster.api_kinds import KINDS, Misspelt, misspelt

_MODEL = re.compile(r"(?:[A-Z][a-z]+(?=V\d))?V\d+(?:alpha\d+|beta\d+)?(?P<type>[A-Z]\w*)")
"""As V1Service, CoreV1EndpointPort and V1beta1IPAddress."""
_OF_METALLB = {
    "IPAddressPool",
    "IPAddressPoolSpec",
    "IPAddressPoolStatus",
    "L2Advertisement",
    "L2AdvertisementSpec",
    "PreferredNodeSelector",
    "ServiceAllocation",
}


def of_the_library() -> dict[str, set[str]]:
    """The fields of each type, as the client library has them."""
    found: dict[str, set[str]] = {}
    for name in dir(models):
        match = _MODEL.fullmatch(name)
        if match:
            fields = getattr(models, name).attribute_map.values()
            found.setdefault(match["type"], set()).update(fields)
    return found


def test_the_table_has_the_fields_of_the_api() -> None:
    known = of_the_library()
    for name, fields in types().items():
        if name not in _OF_METALLB:
            assert set(fields) == known[name], name


def test_each_type_of_a_field_is_in_the_table() -> None:
    used = {inner for fields in types().values() for inner in fields.values() if inner}
    assert used <= types().keys()


def test_the_kinds_are_those_of_the_api() -> None:
    top = {"apiVersion", "kind", "metadata"}
    found = {name for name, fields in of_the_library().items() if top <= fields}
    not_objects = {name for name in found if name.endswith("List")} | {
        "APIGroupDiscovery",
        "Status",
    }
    assert found - not_objects == KINDS


def service(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, **fields}


ROWS = [
    pytest.param(service(spec={"ports": [{"port": 80, "nodePort": 3}]}), [], id="all known"),
    pytest.param(
        service(spec={"ports": [{"port": 80}, {"nodeport": 3}]}),
        ['spec.ports.1.nodeport; did you mean "nodePort"?'],
        id="in a list",
    ),
    pytest.param(
        service(spec={"nodeport": 3}),
        ['spec.nodeport; did you mean "nodePort" in spec.ports?'],
        id="misspelt, and in the wrong place",
    ),
    pytest.param(
        service(spec={"targetPort": 3}), ["spec.targetPort; it belongs in spec.ports"], id="place"
    ),
    pytest.param(service(selector={"a": "b"}), ["selector; it belongs in spec"], id="top level"),
    pytest.param(service(Spec={}), ['Spec; did you mean "spec"?'], id="a capital"),
    pytest.param(service(spec={"x": 1}), ["spec.x"], id="like none"),
    pytest.param(
        service(spec={"sessionAffinityConfig": {"clientIP": {"timeout": 3}}}),
        ['spec.sessionAffinityConfig.clientIP.timeout; did you mean "timeoutSeconds"?'],
        id="deep",
    ),
    pytest.param(
        service(metadata={"labels": {"nodeport": "x"}, "annotations": {"y": "z"}}),
        [],
        id="keys of any name",
    ),
    pytest.param(service(spec=[], metadata=3, status=None), [], id="values of other types"),
    pytest.param(
        service(spec={"ports": {"port": 80, "prot": 1}}),
        ['spec.ports.prot; did you mean "port"?'],
        id="a mapping in place of a list",
    ),
    pytest.param(service(spec={"ports": [3, None, [{"x": 1}]]}), [], id="items of other types"),
    pytest.param(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressTyp": "IPv4",
            "endpoints": [{"address": ["10.0.0.1"], "conditions": {"Ready": True}}],
        },
        [
            'addressTyp; did you mean "addressType"?',
            'endpoints.0.address; did you mean "addresses"?',
            'endpoints.0.conditions.Ready; did you mean "ready"?',
        ],
        id="EndpointSlice",
    ),
    pytest.param(
        {"apiVersion": "v1", "kind": "Endpoints", "subset": []},
        ['subset; did you mean "subsets"?'],
        id="Endpoints",
    ),
    pytest.param(
        {"apiVersion": "v1", "kind": "Node", "spec": {"podCidr": "10.0.0.0/24"}},
        ['spec.podCidr; did you mean "podCIDR"?'],
        id="Node",
    ),
    pytest.param(
        {"apiVersion": "v1", "kind": "Namespace", "labels": {}},
        ["labels; it belongs in metadata"],
        id="Namespace",
    ),
    pytest.param(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "spec": {"containers": [{"ports": [{"containerport": 1}], "volumeMounts": [{"x": 1}]}]},
        },
        [
            'spec.containers.0.ports.0.containerport; did you mean "containerPort"?',
            "spec.containers.0.volumeMounts.0.x",
        ],
        id="Pod",
    ),
    pytest.param(
        {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "spec": {"autoassign": 1}},
        ['spec.autoassign; did you mean "autoAssign"?'],
        id="IPAddressPool",
    ),
    pytest.param(
        {
            "apiVersion": "metallb.io/v1beta1",
            "kind": "L2Advertisement",
            "spec": {"nodeSelectors": [{"matchLabel": {"a": "b"}}]},
        },
        ['spec.nodeSelectors.0.matchLabel; did you mean "matchLabels"?'],
        id="L2Advertisement",
    ),
    pytest.param({"apiVersion": "v1", "kind": "ConfigMap", "dada": {}}, [], id="other kind"),
    pytest.param({"apiVersion": "x.y/v1", "kind": "Service", "x": 1}, [], id="other group"),
    pytest.param({"apiVersion": ["v1"], "kind": {}}, [], id="no kind"),
]


@pytest.mark.parametrize(("document", "expected"), ROWS)
def test_unknown_fields(document: dict[str, Any], expected: list[str]) -> None:
    found = [".".join(map(str, path)) + advice for path, advice in unknown_fields(document)]
    assert found == expected


def no_kind(kind: str, meant: str = "") -> str:
    advice = f'; did you mean "{meant}"?' if meant else ""
    return f'"{kind}" is not a kind that Kubernetes has, so it is ignored{advice}'


@pytest.mark.parametrize(
    ("version", "kind", "expected"),
    [
        pytest.param(
            "v1",
            "Services",
            Misspelt("kind", no_kind("Services", "Service"), is_used=True),
            id="plural",
        ),
        pytest.param(
            "v1",
            "service",
            Misspelt("kind", no_kind("service", "Service"), is_used=True),
            id="lower case",
        ),
        pytest.param(
            "discovery.k8s.io/v1",
            "EndpointSlices",
            Misspelt("kind", no_kind("EndpointSlices", "EndpointSlice"), is_used=True),
            id="plural of a slice",
        ),
        pytest.param(
            "apps/v1",
            "Deploymnet",
            Misspelt("kind", no_kind("Deploymnet", "Deployment"), is_used=False),
            id="of no use",
        ),
        *(
            pytest.param(
                "v1",
                kind,
                Misspelt("kind", no_kind(shown), is_used=False),
                id=name,
            )
            for name, kind, shown in (
                ("like none", "Foo", "Foo"),
                ("long", "x" * 40_000, "x" * 250 + "..."),
            )
        ),
        *(
            pytest.param(
                version,
                "EndpointSlice",
                Misspelt(
                    "apiVersion",
                    "EndpointSlice is read from discovery.k8s.io/v1 only",
                    is_used=True,
                ),
                id=f"a slice of {version}",
            )
            for version in ("v1", "discovery/v1", "discovery.k8s.oi/v1", "discovery.k8s.io/v1beta1")
        ),
        pytest.param("v1", "ConfigMap", None, id="known"),
        pytest.param("v1", "List", None, id="a List of nothing"),
        pytest.param("serving.knative.dev/v1", "Service", None, id="Knative"),
        pytest.param("kustomize.config.k8s.io/v1beta1", "Kustomization", None, id="Kustomize"),
        pytest.param("gateway.networking.k8s.io/v1", "Gateway", None, id="Gateway"),
        pytest.param("monitoring.coreos.com/v1", "Services", None, id="other group"),
    ],
)
def test_misspelt_kinds(version: str, kind: str, expected: Misspelt | None) -> None:
    assert misspelt(version, kind) == expected
