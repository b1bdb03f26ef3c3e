"""The manifests that run uproxy in a cluster: they render, and allow what is needed and no more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.rendering import (
    KUSTOMIZE,
    Object,
    components,
    container_of,
    kustomized,
    only,
    pod_of,
    rendered,
    settings_of,
)
from uproxy.cli.commands.run import command as run
from uproxy.cli.variables import unknown_variables
from uproxy.config.settings import Config
from uproxy.config.syntax import parse_networks, parse_server_addresses
from uproxy.core.allocation.pool_syntax import parse_pool


@pytest.fixture(scope="module")
def entry() -> list[Object]:
    """As the files are."""
    return rendered(KUSTOMIZE)


def ports(objects: list[Object]) -> set[int]:
    """Those of the node that the Pod's containers are declared to use."""
    return {
        port["containerPort"] for each in pod_of(objects)["containers"] for port in each["ports"]
    }


def test_it_renders(entry: list[Object]) -> None:
    assert {each["kind"] for each in entry} == {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "DaemonSet",
        "ServiceAccount",
    }


def test_each_component_is_in_the_kustomization() -> None:
    folders = {each.parent.name for each in KUSTOMIZE.glob("*/kustomization.yaml")}
    assert set(components()) == folders - {"base"} | {"monitoring", "seccomp"}
    assert [name for name, used in components().items() if used] == ["replace-kube-proxy"]


def test_names_fit_together(entry: list[Object]) -> None:
    account = only(entry, "ServiceAccount")["metadata"]
    binding = only(entry, "ClusterRoleBinding")
    (subject,) = binding["subjects"]
    assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])
    assert binding["roleRef"]["name"] == only(entry, "ClusterRole")["metadata"]["name"]
    assert pod_of(entry)["serviceAccountName"] == account["name"]
    assert settings_of(entry)
    spec = only(entry, "DaemonSet")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels != {}


def test_privileges(entry: list[Object]) -> None:
    security = container_of(entry)["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "NET_ADMIN"]}
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert "privileged" not in security
    assert pod_of(entry)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_kubelets_kubeconfig_is_mounted_where_the_program_looks(entry: list[Object]) -> None:
    """Read-only, alone, and only where it exists: nothing may appear in its place on a node."""
    assert {
        "name": "kubelet-kubeconfig",
        "mountPath": str(Config().kubelet_kubeconfig),
        "readOnly": True,
    } in container_of(entry)["volumeMounts"]
    host_paths = {each["name"]: each["hostPath"] for each in pod_of(entry)["volumes"]}
    assert host_paths == {
        "kubelet-kubeconfig": {"path": "/etc/kubernetes/kubelet.conf", "type": "File"},
        "state": {"path": "/var/lib/uproxy", "type": "DirectoryOrCreate"},
    }


def test_it_can_be_left_out(tmp_path: Path) -> None:
    objects = kustomized(tmp_path)
    assert [each["name"] for each in pod_of(objects)["volumes"]] == ["state"]
    assert [each["name"] for each in container_of(objects)["volumeMounts"]] == ["state"]


def test_the_addresses_are_the_defaults(entry: list[Object]) -> None:
    """They are said because kube-rbac-proxy and `uproxy status` have to know them, too."""
    health, metrics = Config().healthz_address, Config().metrics_address
    assert health is not None
    assert metrics is not None
    assert settings_of(entry) == {
        "UPROXY_HEALTHZ_BIND_ADDRESS": f"{health.host}:{health.port}",
        "UPROXY_METRICS_BIND_ADDRESS": f"{metrics.host}:{metrics.port}",
        "UPROXY_URL": f"http://{metrics.host}:{metrics.port}",
    }
    assert ports(entry) == {10256}


def test_alongside_kube_proxy_no_port_is_the_same(tmp_path: Path, entry: list[Object]) -> None:
    objects = kustomized(tmp_path, "alongside-kube-proxy", "monitoring")
    settings = settings_of(objects)
    theirs = set(settings_of(entry).values())
    assert settings.pop("UPROXY_SERVICE_PROXY_NAME")
    assert not theirs & set(settings.values())
    assert settings["UPROXY_URL"] == f"http://{settings['UPROXY_METRICS_BIND_ADDRESS']}"
    health = int(settings["UPROXY_HEALTHZ_BIND_ADDRESS"].rpartition(":")[2])
    metrics = int(settings["UPROXY_METRICS_BIND_ADDRESS"].rpartition(":")[2])
    assert ports(objects) == {health, 10349}
    assert metrics not in ports(objects), "kube-rbac-proxy has a port of its own"
    probes = [container_of(objects)[f"{each}Probe"] for each in ("liveness", "readiness")]
    assert [each["httpGet"]["port"] for each in probes] == ["health", "health"]
    (source,) = container_of(objects, "kube-rbac-proxy")["envFrom"]
    assert [source] == container_of(objects)["envFrom"]


def test_an_ordinary_user_has_no_privileges(tmp_path: Path) -> None:
    objects = kustomized(tmp_path, "alongside-kube-proxy", "load-balancer", "unprivileged")
    security = container_of(objects)["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] != 0
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert not [each for each in pod_of(objects)["volumes"] if "hostPath" in each]
    assert settings_of(objects)["UPROXY_CLAIM_ADDRESSES"] == "never"


def test_an_ordinary_user_cannot_replace_kube_proxy(tmp_path: Path) -> None:
    """Kubelet's kubeconfig is for root alone, and ClusterIPs would not be served."""
    with pytest.raises(AssertionError, match="volumeMounts/0/name"):
        kustomized(tmp_path, "replace-kube-proxy", "unprivileged")


def test_addresses_of_load_balancers(tmp_path: Path) -> None:
    objects = kustomized(tmp_path, "load-balancer", settings={"UPROXY_LB": "node"})
    added = container_of(objects)["securityContext"]["capabilities"]["add"]
    assert added == ["NET_BIND_SERVICE", "NET_ADMIN", "NET_RAW"]
    assert settings_of(objects)["UPROXY_LB"] == "node"


def test_metallbs_objects(tmp_path: Path) -> None:
    objects = kustomized(tmp_path, "load-balancer", "metallb-objects")
    assert settings_of(objects)["UPROXY_LB"] == "metallb"
    places = {
        (each["kind"], each["metadata"]["name"], each["metadata"]["namespace"])
        for each in objects
        if each["kind"] in ("Role", "RoleBinding")
    }
    assert places == {
        (kind, name, namespace)
        for kind in ("Role", "RoleBinding")
        for name, namespace in (
            ("uproxy-load-balancer", "kube-system"),
            ("uproxy-metallb-objects", Config().metallb_namespace),
        )
    }
    for each in objects:
        if each["kind"] == "RoleBinding":
            assert each["roleRef"]["name"] == each["metadata"]["name"]
            (subject,) = each["subjects"]
            assert (subject["name"], subject["namespace"]) == ("uproxy", "kube-system")


def test_the_examples_of_settings_are_understood() -> None:
    """By the name of a flag: the example of its variable. None of them is in effect."""
    lines = (KUSTOMIZE / "settings.env").read_text().splitlines()
    assert all(each.startswith("#") for each in lines if each)
    examples = dict(re.findall(r"^#(UPROXY_\w+)=(.+)$", "\n".join(lines), re.MULTILINE))
    flags = {each.envvar: str(each.name) for each in run.params}
    found = {flags[name]: value for name, value in examples.items()}
    assert parse_server_addresses(found.pop("apiserver_address")) == (
        "192.0.2.1:6443",
        "192.0.2.2:6443",
    )
    assert len(parse_networks(found.pop("external_ip_cidrs"))) == 2
    ranges = parse_pool(found.pop("lb_pool")).ranges
    assert [str(each) for each in ranges] == [
        "192.0.2.10-192.0.2.50",
        "2001:db8::10-2001:db8::50",
    ]
    assert found == {"lb": "node"}


def test_every_object_has_a_namespace_and_the_label(tmp_path: Path) -> None:
    names = [each for each in components() if each not in ("alongside-kube-proxy", "unprivileged")]
    for each in kustomized(tmp_path, *names):
        metadata = each["metadata"]
        assert metadata["labels"]["app.kubernetes.io/name"] == "uproxy"
        assert ("namespace" in metadata) != each["kind"].startswith("Cluster"), metadata["name"]


def test_settings_and_flags_are_known_to_the_program(tmp_path: Path) -> None:
    names = ("alongside-kube-proxy", "load-balancer", "metallb-objects", "unprivileged")
    objects = kustomized(tmp_path, *names)
    assert not list(unknown_variables(settings_of(objects), run))
    arguments = [each.replace("$(NODE_NAME)", "n1") for each in container_of(objects)["args"]]
    command = [sys.executable, "-m", "uproxy.cli", *arguments]
    for extra, code in (([], 0), (["--no-such-flag"], 2)):
        done = subprocess.run([*command, *extra, "--help"], capture_output=True, check=False)
        assert done.returncode == code, done.stderr


def test_it_has_longer_to_end_than_flows_have(entry: list[Object]) -> None:
    assert pod_of(entry)["terminationGracePeriodSeconds"] >= Config().drain_timeout + 10
