"""Extreme and malformed values: each is a reason at most, and never an exception that
the caller does not expect."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from uproxy.apiserver.access import ExecPlugin
from uproxy.apiserver.exec_plugin import PluginError, read_credential
from uproxy.apiserver.kubeconfig import read_kubeconfig
from uproxy.config.combine import combine
from uproxy.config.file import ConfigFileError, read_config
from uproxy.config.settings import Config
from uproxy.core.cluster.decode import DecodeError, from_data, from_json, kind_of
from uproxy.core.cluster.objects import Endpoints, EndpointSlice, Node, Object, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.core.errors import SourceError
from uproxy.sources.kubernetes.mirror import Mirror
from uproxy.sources.kubernetes.verdict import judge
from uproxy.sources.kubernetes.watch_format import (
    Failure,
    MalformedAnswer,
    read_event,
    read_failure,
    read_page,
)
from uproxy.sources.last_known.snapshot import SnapshotError, load, rfc3339
from uproxy.sources.manifests.file import read_manifest

LONGEST = 2000
"""Characters that an error may have, whatever it is about."""

KINDS: tuple[type[Any], ...] = (Service, EndpointSlice, Endpoints, Node)
DIGITS = ["9" * 19, "9" * 20, "9" * 400, "9" * 3600, "9" * 5000]
NUMBERS = [*DIGITS, "-" + "9" * 3600, "0x" + "f" * 3600, "0b" + "1" * 20000, "1e999", "-1e999"]
DEEP = [pytest.param(100, id="100"), pytest.param(1000, id="1000"), pytest.param(100_000, id="1e5")]

PORT_YAML = """\
apiVersion: v1
kind: Service
metadata: {{name: odd}}
spec: {{ports: [{{port: {}}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: fine}}
"""
TARGET_YAML = PORT_YAML.replace("port: {}", "port: 80, targetPort: {}")


def short(number: str) -> str:
    return f"{number[:4]}-{len(number)}"


@pytest.mark.parametrize("number", NUMBERS, ids=short)
@pytest.mark.parametrize("text", [PORT_YAML, TARGET_YAML], ids=["port", "targetPort"])
def test_a_number_that_no_port_can_be_is_one_error(text: str, number: str) -> None:
    reading = read_manifest("x.yaml", text.format(number).encode())
    names = {each.name.name for each in reading.objects}
    assert "fine" in names
    assert len(reading.errors) == (1 if "odd" not in names else 0)
    assert all(len(each.reason) < LONGEST for each in reading.errors)
    for located in reading.objects.values():
        msgspec.json.encode(located.obj)  # What was accepted can be kept on disk.


@pytest.mark.parametrize("number", [each for each in NUMBERS if "x" not in each], ids=short)
def test_a_number_in_json_that_no_port_can_be_is_one_error(number: str) -> None:
    odd = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "odd"}}
    fine = odd | {"metadata": {"name": "fine"}}
    odd["spec"] = {"ports": [{"port": 0}]}
    text = msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": [odd, fine]})
    reading = read_manifest("x.json", text.replace(b'"port":0', f'"port":{number}'.encode()))
    if number.startswith("0b"):
        assert len(reading.errors) == 1, "that is no JSON"
        return
    assert [each.name.name for each in reading.objects] == ["fine"]
    assert [each.field for each in reading.errors] == ["items[0].spec.ports[0].port"]


@pytest.mark.parametrize("number", NUMBERS, ids=short)
@pytest.mark.parametrize(
    "text",
    ["{}", "{}: 1", "apiVersion: {}", "apiVersion: v1\nkind: {}", "a: &a {}\nb: *a\n? *a\n: 1"],
    ids=["alone", "key", "apiVersion", "kind", "anchor"],
)
def test_a_number_anywhere_in_yaml_is_an_error_at_most(text: str, number: str) -> None:
    reading = read_manifest("x.yaml", text.format(number).encode())
    assert all(len(each.reason) + len(each.field) < LONGEST for each in reading.errors)


@pytest.mark.parametrize("number", NUMBERS, ids=short)
def test_a_number_from_the_api_that_no_port_can_be_is_one_error(number: str) -> None:
    if not number.lstrip("-").startswith(("9", "1e")):
        return
    mirror = Mirror(Service)
    raw = (
        '{"metadata":{"name":"web","resourceVersion":"5"},"spec":{"ports":'
        f'[{{"port":80,"targetPort":{number}}}]}}}}'
    )
    assert mirror.apply_change(msgspec.Raw(raw.encode())) is None
    assert [each.field for each in mirror.errors] == ["spec.ports[0].targetPort"]


@pytest.mark.parametrize("digits", DIGITS, ids=short)
def test_versions_with_any_number_of_digits_are_compared(digits: str) -> None:
    mirror = Mirror(Service)
    mirror.finish_list("7")
    first = f'{{"metadata":{{"name":"web","resourceVersion":"{digits}"}}}}'.encode()
    assert mirror.apply_change(msgspec.Raw(first)) is not None
    assert mirror.apply_change(msgspec.Raw(first)) is None, "the same again"
    later = first.replace(digits.encode(), b"1" + b"0" * len(digits))
    assert mirror.apply_change(msgspec.Raw(later)) is not None
    assert mirror.apply_change(msgspec.Raw(first)) is None, "it is older"
    assert len(mirror.version) < 1000, "it is sent to the server in a URL"


def test_a_list_without_a_usable_version_is_refused() -> None:
    for version in ("", "9" * 5000):
        mirror = Mirror(Service)
        with pytest.raises(MalformedAnswer, match="resourceVersion"):
            mirror.finish_list(version)


@pytest.mark.parametrize("digits", [*DIGITS, "1e999", "-1"], ids=short)
def test_a_wait_that_the_server_asks_for_is_bounded(digits: str) -> None:
    body = f'{{"code":429,"details":{{"retryAfterSeconds":{digits}}}}}'.encode()
    failure = read_failure(body, 429)
    wait = judge(failure).retry_after
    assert wait is None or 0 <= wait <= 300
    assert len(str(failure)) < LONGEST


def test_messages_of_the_server_are_bounded() -> None:
    failure = read_failure(msgspec.json.encode({"code": 403, "message": "x" * 100_000}))
    assert len(str(failure)) < LONGEST


PLUGIN = ExecPlugin(api_version="client.authentication.k8s.io/v1", command="login")


def credential(**status: Any) -> bytes:
    return msgspec.json.encode({"apiVersion": PLUGIN.api_version, "status": status})


NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expiry", "expired"),
    [
        pytest.param("0001-01-01T00:00:00Z", False, id="the zero time of Go: never"),
        pytest.param("0001-01-01T00:00:01Z", True, id="the second after it"),
        pytest.param("0001-01-01T00:00:29+00:01", True, id="before the first year, in UTC"),
        pytest.param("9999-12-31T23:59:59-14:00", False, id="after the last year, in UTC"),
        pytest.param("9999-12-31T23:59:59Z", False, id="the last year"),
        pytest.param("2026-11-21T00:00:31Z", False, id="soon"),
        pytest.param("2026-11-21T00:00:29Z", True, id="too soon"),
    ],
)
def test_any_time_may_be_when_credentials_expire(expiry: str, expired: bool) -> None:
    try:
        issued = read_credential(PLUGIN, credential(token="t", expirationTimestamp=expiry))
    except PluginError:
        assert "-14:00" in expiry or "+00:01" in expiry
        return
    assert issued.expired(NOW) is expired


@pytest.mark.parametrize(
    "saved_at", ["1e12", "-1", "1e308", "1e999", "253402300800", "-62135596801", "9" * 400]
)
def test_a_state_saved_in_no_year_is_refused(tmp_path: Path, saved_at: str) -> None:
    path = tmp_path / "state"
    path.write_bytes(state_file(f'"savedAt":{saved_at}'))
    with pytest.raises(SnapshotError):
        load(path, node="here")


def test_a_state_saved_in_some_year_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for saved_at in (0.0, 253402300799.0):
        path.write_bytes(state_file(f'"savedAt":{saved_at}'))
        path.chmod(0o600)
        known = load(path, node="here")
        assert known is not None
        assert rfc3339(known.saved_at).startswith(("1970-01-01", "9999-12-31"))


@pytest.mark.parametrize("depth", DEEP)
def test_a_state_that_nests_deep_is_refused(tmp_path: Path, depth: int) -> None:
    nested = "[" * depth
    for text in (state_file(f'"savedAt":0,"x":{nested}'), state_file('"savedAt":0', nested)):
        path = tmp_path / "state"
        path.write_bytes(text)
        with pytest.raises(SnapshotError):
            load(path, node="here")


def state_file(header: str, objects: str = "{}") -> bytes:
    """A file with a checksum that fits."""
    first = f'{{"format":"uproxy last-known state","version":1,"node":"here",{header}}}\n'
    content = f"{first}{objects}\n".encode()
    digest = hashlib.sha256(content).hexdigest()
    return content + f'{{"objects":0,"sha256":"{digest}"}}\n'.encode()


@pytest.mark.parametrize("depth", DEEP)
@pytest.mark.parametrize("piece", ["[", '{"a":', '[{"a":'], ids=["list", "mapping", "both"])
def test_texts_that_nest_deep(tmp_path: Path, piece: str, depth: int) -> None:
    for text in (piece * depth, piece * depth + "1" + ("]" if piece == "[" else "") * depth):
        raw = text.encode()
        for name in ("x.yaml", "x.json"):
            assert read_manifest(name, raw).errors
        check_calm(lambda raw=raw: read_event(raw), MalformedAnswer)
        check_calm(lambda raw=raw: read_page(raw), MalformedAnswer)
        check_calm(lambda raw=raw: read_credential(PLUGIN, raw), PluginError)
        read_failure(raw)
        (tmp_path / "config").write_bytes(raw)
        check_calm(lambda: read_kubeconfig([tmp_path / "config"]), SourceError)
        check_calm(lambda: read_config(tmp_path, (tmp_path / "config").read_bytes()))


def check_calm(call: Any, *allowed: type[Exception]) -> Any:
    """What a call returns, unless it raises what it may raise."""
    try:
        return call()
    except Exception as error:
        if not isinstance(error, (ConfigFileError, *allowed)):
            raise
        reason = str(error)
    assert len(reason) < LONGEST
    assert "\n" not in reason
    return None


# Any JSON value in any field.

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**15, 10**400)
    | st.floats(allow_nan=False)
    | st.sampled_from([math.inf, -math.inf, 65535, 65536, 0, -1])
    | st.text(max_size=5)
    | st.sampled_from(["1.2.3.4", "::1", "fe80::1%x", "10.0.0.0/8", "1.2.3.4/" + "9" * 5000])
    | st.sampled_from(["Local", "TCP", "ClientIP", "v1", "Service", "9" * 5000, "\x00", "\n"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
FINE: dict[type[Any], dict[str, Any]] = {
    Service: {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "web",
            "namespace": "default",
            "uid": "u",
            "resourceVersion": "1",
            "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": None,
            "labels": {"service.kubernetes.io/service-proxy-name": "x"},
            "annotations": {"uproxy.dev/balancer": "random", "uproxy.dev/proxy-protocol": "v1"},
        },
        "spec": {
            "type": "LoadBalancer",
            "ports": [
                {"port": 1, "name": "p", "protocol": "TCP", "nodePort": 30000, "targetPort": 2}
            ],
            "selector": {"a": "b"},
            "clusterIP": "10.0.0.1",
            "clusterIPs": ["10.0.0.1"],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "externalIPs": ["192.0.2.1"],
            "externalName": "",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}},
            "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Cluster",
            "healthCheckNodePort": 30001,
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "loadBalancerClass": "x",
            "loadBalancerIP": "192.0.2.2",
            "allocateLoadBalancerNodePorts": True,
            "publishNotReadyAddresses": False,
        },
        "status": {
            "loadBalancer": {"ingress": [{"ip": "192.0.2.3", "ipMode": "VIP"}]},
            "conditions": [
                {
                    "type": "uproxy.dev/AddressAssigned",
                    "status": "True",
                    "observedGeneration": 3,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                    "reason": "Assigned",
                    "message": "",
                }
            ],
        },
    },
    EndpointSlice: {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1",
            "labels": {"kubernetes.io/service-name": "web"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "p", "port": 80, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": ["10.1.0.1"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": "here",
                "zone": "z",
                "hints": {"forZones": [{"name": "z"}]},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": "x"},
            }
        ],
    },
    Endpoints: {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "web"},
        "subsets": [
            {
                "addresses": [{"ip": "10.1.0.1", "nodeName": "here", "targetRef": {"kind": "Pod"}}],
                "notReadyAddresses": [{"ip": "10.1.0.2"}],
                "ports": [{"port": 80}],
            }
        ],
    },
    Node: {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "here", "labels": {"topology.kubernetes.io/zone": "z"}},
        "spec": {
            "podCIDR": "10.1.0.0/24",
            "podCIDRs": ["10.1.0.0/24"],
            "taints": [{"key": "k", "effect": "NoSchedule", "value": ""}],
            "unschedulable": True,
        },
        "status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.9"}],
            "conditions": [{"type": "NetworkUnavailable", "status": "True"}],
        },
    },
}


def fields(data: Any, prefix: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Ways to everything in some data, the whole included."""
    found = [prefix]
    if isinstance(data, dict | list):
        entries = data.items() if isinstance(data, dict) else enumerate(data)
        for key, value in entries:
            found += fields(value, (*prefix, key))
    return found


def with_value(data: Any, way: tuple[str | int, ...], value: Any) -> Any:
    """The same data but for one field."""
    if not way:
        return value
    copy = data.copy()
    copy[way[0]] = with_value(data[way[0]], way[1:], value)
    return copy


ODD_OBJECTS = st.sampled_from(KINDS).flatmap(
    lambda kind: st.builds(
        lambda way, value: (kind, with_value(FINE[kind], way, value)),
        st.sampled_from(fields(FINE[kind])),
        VALUES,
    )
)


@settings(max_examples=400)
@given(ODD_OBJECTS)
@example((Service, with_value(FINE[Service], ("spec", "ports", 0, "targetPort"), 10**400)))
def test_any_value_in_any_field_of_an_object(odd: tuple[type[Object], Any]) -> None:
    kind, data = odd
    text = as_json(data)
    for path in ("x.yaml", "x.json"):
        reading = read_manifest(path, text)
        assert all(len(each.reason + each.field) < LONGEST for each in reading.errors)
    check_calm(lambda: kind_of(data), DecodeError)
    obj = check_calm(lambda: from_data(data, kind), DecodeError)
    found = check_calm(lambda: from_json(text, kind), DecodeError)
    mirror = Mirror(kind)
    check_calm(lambda: mirror.apply_change(msgspec.Raw(text)), MalformedAnswer)
    check_calm(lambda: mirror.apply_deletion(msgspec.Raw(text)), MalformedAnswer)
    mirror.add_listed(msgspec.Raw(text))
    mirror.drop_listed(msgspec.Raw(text))
    mirror.apply_bookmark(msgspec.Raw(text))
    for each in (obj, found):
        if each is not None:
            msgspec.json.encode(each)
            state = ClusterState(["x"], node_name="here")
            state.apply("x", each)
            for name in state.take_dirty():
                state.slices_of(name)
            state.remove("x", type(each), each.key)


def as_json(data: Any) -> bytes:
    """JSON with numbers that msgspec refuses to write; infinity as one that is too large."""
    if isinstance(data, dict):
        pairs = (msgspec.json.encode(key) + b":" + as_json(each) for key, each in data.items())
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(data, list):
        return b"[" + b",".join(map(as_json, data)) + b"]"
    if isinstance(data, float) and math.isinf(data):
        return b"1e999" if data > 0 else b"-1e999"
    if isinstance(data, int) and not isinstance(data, bool):
        return str(data).encode()
    return msgspec.json.encode(data)


@given(VALUES, st.sampled_from(["code", "reason", "message", "details"]))
def test_any_value_in_any_field_of_a_failure(value: Any, field: str) -> None:
    for data in (value, {field: value}, {"code": 429, "details": {"retryAfterSeconds": value}}):
        failure = read_failure(as_json(data), 500)
        assert isinstance(failure, Failure)
        assert len(str(failure)) < LONGEST
        judge(failure)


@given(VALUES, st.sampled_from(["metadata", "items", "type", "object", "kind"]))
def test_any_value_in_any_field_of_an_answer(value: Any, field: str) -> None:
    for data in (
        value,
        {field: value},
        {"metadata": {"resourceVersion": value}, "items": [value]},
        {"metadata": {"continue": value}},
        {"type": "ADDED", "object": value},
        {"type": value, "object": {}},
    ):
        check_calm(lambda data=data: read_event(as_json(data)), MalformedAnswer)
        check_calm(lambda data=data: read_page(as_json(data)), MalformedAnswer)


@given(
    VALUES,
    st.sampled_from(
        ["token", "clientCertificateData", "clientKeyData", "expirationTimestamp", "x"]
    ),
)
def test_any_value_in_any_field_of_a_credential(value: Any, field: str) -> None:
    status = {"token": "t", "expirationTimestamp": "2026-01-01T00:00:00Z", field: value}
    for data in (
        value,
        {"apiVersion": value},
        {"apiVersion": PLUGIN.api_version, "status": value},
        {"apiVersion": PLUGIN.api_version, "status": status},
    ):
        issued = check_calm(lambda data=data: read_credential(PLUGIN, as_json(data)), PluginError)
        if issued is not None:
            issued.expired(NOW)


KUBECONFIG: dict[str, Any] = {
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [
        {
            "name": "c",
            "cluster": {
                "server": "https://192.0.2.1",
                "certificate-authority-data": "",
                "extensions": [{"name": "x", "extension": {}}],
                "proxy-url": "",
                "tls-server-name": "",
            },
        }
    ],
    "users": [
        {
            "name": "u",
            "user": {
                "token": "t",
                "tokenFile": "",
                "client-key-data": "",
                "username": "",
                "exec": {
                    "apiVersion": "client.authentication.k8s.io/v1",
                    "command": "x",
                    "args": ["a"],
                },
            },
        }
    ],
}


@settings(max_examples=300)
@given(st.sampled_from(fields(KUBECONFIG)), VALUES)
@example(("users", 0, "user", "tokenFile"), "\0")
@example(("users", 0, "user", "client-key-data"), "\u20ac")
@example(("clusters", 0, "cluster", "server"), "http://[::1")
def test_any_value_in_any_field_of_a_kubeconfig(
    tmp_path_factory: pytest.TempPathFactory, way: tuple[str | int, ...], value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "kubeconfig"
    path.write_bytes(as_json(with_value(KUBECONFIG, way, value)))
    check_calm(lambda: read_kubeconfig([path]), SourceError)


KUBE_PROXY_CONFIG: dict[str, Any] = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "hostnameOverride": "x",
    "healthzBindAddress": "0.0.0.0:10256",
    "nodePortAddresses": ["10.0.0.0/8"],
    "clusterCIDR": "10.0.0.0/8",
    "logging": {"verbosity": 1, "format": "json"},
    "clientConnection": {"qps": 1, "burst": 1, "kubeconfig": "x"},
    "conntrack": {"min": 1, "maxPerCore": 1},
    "featureGates": {"x": True},
    "iptables": {"masqueradeBit": 1, "syncPeriod": "1s"},
}
UPROXY_CONFIG: dict[str, Any] = {
    "apiVersion": "uproxy.dev/v1alpha1",
    "kind": "UproxyConfiguration",
    "manifests": ["x"],
    "serveHealthz": True,
    "workers": 1,
    "maxFlows": 1,
    "udpTimeout": "1s",
    "tcpIdleTimeout": "1s",
    "halfCloseTimeout": "1s",
    "lb": "pools",
    "lbPools": ["a=192.0.2.0/24"],
    "lbReserved": ["192.0.2.1=a/b"],
    "stateDir": "x",
}


LONG = ["9" * 400 + "s", "9" * 5000 + "h", "1e999s", ":" + "9" * 5000]


def check_calm_about(document: dict[str, Any]) -> None:
    def read() -> tuple[Config, tuple[str, ...]]:
        given, warnings = read_config(Path("x"), as_json(document))
        return combine(given).config, warnings

    found = check_calm(read, ValueError)
    if found is not None:
        config, warnings = found
        for field in ("udp_timeout", "tcp_idle_timeout", "half_close_timeout"):
            assert math.isfinite(getattr(config, field))
        assert all(len(each) < LONGEST for each in warnings)


@settings(max_examples=150)
@given(st.sampled_from(fields(KUBE_PROXY_CONFIG)), VALUES | st.sampled_from(LONG))
@example(("nodePortAddresses",), [" "])
@example(("healthzBindAddress",), LONG[3])
def test_any_value_in_any_field_of_the_configuration_of_kube_proxy(
    way: tuple[str | int, ...], value: Any
) -> None:
    check_calm_about(with_value(KUBE_PROXY_CONFIG, way, value))


@settings(max_examples=150)
@given(st.sampled_from(fields(UPROXY_CONFIG)), VALUES | st.sampled_from(LONG))
@example(("udpTimeout",), LONG[0])
@example(("stateDir",), "\0")
@example(("lbPools",), [])
def test_any_value_in_any_field_of_our_configuration(
    way: tuple[str | int, ...], value: Any
) -> None:
    check_calm_about(with_value(UPROXY_CONFIG, way, value))


@given(st.binary(max_size=60))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    check_calm(lambda: read_event(raw), MalformedAnswer)
    check_calm(lambda: read_page(raw), MalformedAnswer)
    check_calm(lambda: read_credential(PLUGIN, raw), PluginError)
    read_failure(raw)
    check_calm(lambda: read_config(Path("x"), raw))
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(raw)
    check_calm(lambda: read_kubeconfig([path]), SourceError)
    check_calm(lambda: load(path, node="here"), SnapshotError)
    for kind in KINDS:
        check_calm(lambda kind=kind: from_json(raw, kind), DecodeError)
