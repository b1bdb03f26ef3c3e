"""The component of kustomize: Prometheus finds the Pods, may read the metrics, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.rendering import kustomized
from tests.monitoring.files import alerts, dashboard
from uproxy.config.settings import Config

Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """By kind and name."""
    found = kustomized(tmp_path_factory.mktemp("kustomize"), "replace-kube-proxy", "monitoring")
    assert all(each["metadata"].get("namespace", "kube-system") == "kube-system" for each in found)
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def sidecar(objects: Objects) -> dict[str, Any]:
    containers = objects["DaemonSet", "uproxy"]["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in containers] == ["uproxy", "kube-rbac-proxy"]
    found: dict[str, Any] = containers[1]
    return found


def test_the_pod_monitor_finds_the_pods(objects: Objects) -> None:
    spec = objects["PodMonitor", "uproxy"]["spec"]
    pods = objects["DaemonSet", "uproxy"]["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= pods.items()
    assert pods[spec["jobLabel"]] == "uproxy"
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["port"] in [each["name"] for each in sidecar(objects)["ports"]]
    assert endpoint["honorLabels"] is True


def test_only_the_metrics_are_passed_on_and_the_page_stays_closed(objects: Objects) -> None:
    proxy = sidecar(objects)
    assert "--upstream=http://$(UPROXY_METRICS_BIND_ADDRESS)/" in proxy["args"]
    assert "--allow-paths=/metrics" in proxy["args"]
    (port,) = proxy["ports"]
    assert f"--secure-listen-address=0.0.0.0:{port['containerPort']}" in proxy["args"]
    security = proxy["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["runAsNonRoot"]
    uproxy = objects["DaemonSet", "uproxy"]["spec"]["template"]["spec"]["containers"][0]
    assert not [each for each in uproxy["args"] if "metrics" in each]
    address = Config().metrics_address
    assert address is not None
    (source,) = proxy["envFrom"]
    settings = objects["ConfigMap", source["configMapRef"]["name"]]["data"]
    assert settings["UPROXY_METRICS_BIND_ADDRESS"] == f"{address.host}:{address.port}"


def test_who_may_do_what(objects: Objects) -> None:
    name = "uproxy-metrics-reader"
    (endpoint,) = objects["PodMonitor", "uproxy"]["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": name, "key": "token"}
    secret = objects["Secret", name]
    assert secret["type"] == "kubernetes.io/service-account-token"
    annotations = secret["metadata"]["annotations"]
    assert annotations == {"kubernetes.io/service-account.name": name}
    assert ("ServiceAccount", name) in objects
    assert objects["ClusterRole", name]["rules"] == [
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
    ]
    for role, account in ((name, name), ("uproxy-kube-rbac-proxy", "uproxy")):
        binding = objects["ClusterRoleBinding", role]
        assert binding["roleRef"]["name"] == role
        (subject,) = binding["subjects"]
        assert (subject["name"], subject["namespace"]) == (account, "kube-system")


def test_the_rules_and_the_dashboard_are_those_of_the_files(objects: Objects) -> None:
    groups = objects["PrometheusRule", "uproxy"]["spec"]["groups"]
    assert [rule for group in groups for rule in group["rules"]] == alerts()
    config_map = objects["ConfigMap", "uproxy-dashboard"]
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config_map["data"]["uproxy.json"]) == dashboard()
