from __future__ import annotations

import json
from typing import Any

import pytest

from uproxy.core.cluster.decode import DecodeError, from_data, from_json, kind_of
from uproxy.core.cluster.objects import (
    Endpoints,
    EndpointSlice,
    Node,
    ObjectName,
    Service,
    ServicePort,
)

SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "managedFields": [{"manager": "kubectl"}],
    },
    "spec": {
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.1",
        "clusterIPs": ["10.96.0.1", "fd00::1"],
        "ports": [{"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080}],
        "externalIPs": ["192.0.2.7"],
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 32000,
        "loadBalancerIP": "192.0.2.8",
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.8", "ipMode": "VIP"}]}},
}


def test_a_service_in_the_api_s_own_shape() -> None:
    service = from_json(json.dumps(SERVICE).encode(), Service)
    assert isinstance(service, Service)
    assert service == from_data(SERVICE, Service)
    assert service.key == ObjectName("shop", "web")
    assert service.ports == (ServicePort(port=80, name="http", node_port=30080, target_port="web"),)
    assert service.spec.cluster_ips == ("10.96.0.1", "fd00::1")
    assert service.spec.external_ips == ("192.0.2.7",)
    assert service.spec.health_check_node_port == 32000
    affinity = service.spec.session_affinity_config
    assert affinity is not None
    assert affinity.client_ip is not None
    assert affinity.client_ip.timeout_seconds == 60
    assert [(each.ip, each.ip_mode) for each in service.ingress] == [("192.0.2.8", "VIP")]


def test_an_empty_protocol_of_a_service_port_is_tcp() -> None:
    """As the API server stores it; a manifest may still have it."""
    document = {
        "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80, "protocol": ""}, {"port": 53, "protocol": "UDP"}]},
    }
    service = from_data(document, Service)
    assert isinstance(service, Service)
    assert service == from_json(json.dumps(document).encode(), Service)
    assert [each.protocol for each in service.ports] == ["TCP", "UDP"]


def test_null_collections_are_empty() -> None:
    document = {
        "metadata": {"name": "web", "labels": None, "creationTimestamp": None},
        "spec": {"ports": None, "clusterIPs": None},
        "status": {"loadBalancer": {"ingress": None}},
    }
    service = from_data(document, Service)
    assert isinstance(service, Service)
    assert (service.ports, service.ingress) == ((), ())


def test_an_endpoint_slice_keeps_absent_apart_from_empty() -> None:
    document = {
        "metadata": {"name": "web-x", "namespace": "shop"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": False}}],
        "ports": [{"name": "", "port": 80}, {"port": 81}],
    }
    found = from_data(document, EndpointSlice)
    assert isinstance(found, EndpointSlice)
    assert found.ports is not None
    assert [port.name for port in found.ports] == ["", None]
    assert found.endpoints is not None
    conditions = found.endpoints[0].conditions
    assert (conditions.ready, conditions.serving, conditions.terminating) == (False, None, None)
    assert found.service is None


def test_an_endpoint_slice_belongs_to_the_service_in_its_label() -> None:
    labels = {"kubernetes.io/service-name": "web"}
    document = {
        "metadata": {"name": "web-x", "namespace": "shop", "labels": labels},
        "addressType": "IPv4",
    }
    found = from_data(document, EndpointSlice)
    assert isinstance(found, EndpointSlice)
    assert found.service == ObjectName("shop", "web")


@pytest.mark.parametrize(
    ("document", "path", "what"),
    [
        pytest.param(
            {"metadata": {"name": "a"}, "spec": {"clusterIP": 5}},
            "spec.clusterIP",
            "expected str, got int",
            id="wrong type",
        ),
        pytest.param(
            {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}, {"port": "x"}]}},
            "spec.ports[1].port",
            "expected int, got str",
            id="in a list",
        ),
        pytest.param(
            {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 65536}]}},
            "spec.ports[0].port",
            "expected int <= 65535",
            id="port too large",
        ),
        pytest.param(
            {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 0}]}},
            "spec.ports[0].port",
            "expected int >= 1",
            id="port 0",
        ),
        pytest.param(
            {"metadata": {"name": "a"}, "spec": {"type": "Foo"}},
            "spec.type",
            "invalid enum value 'Foo'",
            id="unknown type",
        ),
        pytest.param(
            {"metadata": {}},
            "metadata",
            "object missing required field name",
            id="no name",
        ),
        pytest.param([], "", "expected object, got array", id="no object"),
    ],
)
def test_the_field_to_blame(document: Any, path: str, what: str) -> None:
    with pytest.raises(DecodeError) as converted:
        from_data(document, Service)
    with pytest.raises(DecodeError) as decoded:
        from_json(json.dumps(document).encode(), Service)
    for error in (converted.value, decoded.value):
        assert (error.path, error.what) == (path, what)
        assert str(error) == (f"{path}: {what}" if path else what)


def test_broken_json() -> None:
    with pytest.raises(DecodeError, match=r"^not JSON: "):
        from_json(b'{"metadata"', Service)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        pytest.param({"apiVersion": "v1", "kind": "Service"}, Service, id="Service"),
        pytest.param({"apiVersion": "v1", "kind": "Endpoints"}, Endpoints, id="Endpoints"),
        pytest.param({"apiVersion": "v1", "kind": "Node"}, Node, id="Node"),
        pytest.param(
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"},
            EndpointSlice,
            id="EndpointSlice",
        ),
        pytest.param({"apiVersion": "v1", "kind": "Pod"}, None, id="a kind that is not used"),
        pytest.param(
            {"apiVersion": "serving.knative.dev/v1", "kind": "Service"},
            None,
            id="a Service of another group",
        ),
    ],
)
def test_kind_of(document: Any, kind: type | None) -> None:
    assert kind_of(document) is kind


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param(None, "expected an object, found nothing", id="empty document"),
        pytest.param([], "expected an object, found a list", id="list"),
        pytest.param("x", "expected an object, found text", id="text"),
        pytest.param(3, "expected an object, found 3", id="number"),
        pytest.param(10**30, "expected an object, found a very large number", id="large number"),
        pytest.param({}, "apiVersion: a string is required", id="nothing in it"),
        pytest.param({"apiVersion": "v1"}, "kind: a string is required", id="no kind"),
        pytest.param(
            {"apiVersion": "v1", "kind": 5}, "kind: a string is required", id="kind is no text"
        ),
    ],
)
def test_kind_of_something_else(document: Any, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        kind_of(document)
    assert str(caught.value) == message
