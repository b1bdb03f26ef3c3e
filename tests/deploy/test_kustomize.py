"""The manifests that run uproxy in a cluster: they render, and allow what is needed and no more."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from uproxy.cli.commands.run import command as run
from uproxy.config.settings import Config
from uproxy.config.syntax import parse_server_addresses
from uproxy.core.allocation.pool_syntax import parse_pool

ROOT = Path(__file__).parents[2]
KUSTOMIZE = ROOT / "deploy" / "kustomize"


def render(directory: Path) -> dict[str, dict[str, Any]]:
    """The objects by kind."""
    return {each["kind"]: each for each in rendered_objects(directory)}


def rendered_objects(directory: Path) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", str(directory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def rendered() -> dict[str, dict[str, Any]]:
    return render(KUSTOMIZE)


def test_it_renders(rendered: dict[str, dict[str, Any]]) -> None:
    assert set(rendered) == {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "DaemonSet",
        "ServiceAccount",
    }


def test_names_fit_together(rendered: dict[str, dict[str, Any]]) -> None:
    pod = rendered["DaemonSet"]["spec"]["template"]["spec"]
    account = rendered["ServiceAccount"]["metadata"]
    (subject,) = rendered["ClusterRoleBinding"]["subjects"]
    assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])
    assert (
        rendered["ClusterRoleBinding"]["roleRef"]["name"]
        == (rendered["ClusterRole"]["metadata"]["name"])
    )
    assert pod["serviceAccountName"] == account["name"]
    (container,) = pod["containers"]
    assert container["envFrom"] == [
        {"configMapRef": {"name": rendered["ConfigMap"]["metadata"]["name"]}}
    ]
    spec = rendered["DaemonSet"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels != {}


def test_privileges(rendered: dict[str, dict[str, Any]]) -> None:
    pod = rendered["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "NET_ADMIN"]}
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert "privileged" not in security
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_kubelets_kubeconfig_is_mounted_where_the_program_looks(
    rendered: dict[str, dict[str, Any]],
) -> None:
    """Read-only, alone, and only where it exists: nothing may appear in its place on a node."""
    pod = rendered["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {
        "name": "kubelet-kubeconfig",
        "mountPath": str(Config().kubelet_kubeconfig),
        "readOnly": True,
    } in container["volumeMounts"]
    host_paths = {each["name"]: each["hostPath"] for each in pod["volumes"]}
    assert host_paths == {
        "kubelet-kubeconfig": {"path": "/etc/kubernetes/kubelet.conf", "type": "File"},
        "state": {"path": "/var/lib/uproxy", "type": "DirectoryOrCreate"},
    }


def test_it_can_be_left_out(tmp_path: Path) -> None:
    copy = tmp_path / "kustomize"
    shutil.copytree(KUSTOMIZE, copy)
    kustomization = copy / "kustomization.yaml"
    text = kustomization.read_text()
    assert "- kubelet-kubeconfig\n" in text
    kustomization.write_text(text.replace("- kubelet-kubeconfig\n", ""))
    pod = render(copy)["DaemonSet"]["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["volumes"]] == ["state"]
    assert [each["name"] for each in pod["containers"][0]["volumeMounts"]] == ["state"]


def examples(file: str) -> dict[str, str]:
    """By the name of a flag: the example of its variable. None of them is in effect."""
    lines = (KUSTOMIZE / file).read_text().splitlines()
    assert all(each.startswith("#") for each in lines)
    found = dict(each.removeprefix("#").split("=", 1) for each in lines if "=" in each)
    flags = {each.envvar: each.name for each in run.params}
    return {str(flags[name]): value for name, value in found.items()}


def test_the_example_of_an_address_is_understood() -> None:
    found = examples("api-server.env")
    assert parse_server_addresses(found.pop("apiserver_address")) == (
        "192.0.2.1:6443",
        "192.0.2.2:6443",
    )
    assert not found, "uproxy finds the API server by itself"


def with_components(directory: Path, *names: str) -> list[dict[str, Any]]:
    """All objects, when the lines of these components are no comments any more."""
    copy = directory / "kustomize"
    shutil.copytree(KUSTOMIZE, copy)
    kustomization = copy / "kustomization.yaml"
    text = kustomization.read_text()
    for name in names:
        assert f"# - {name}\n" in text
        text = text.replace(f"# - {name}\n", f"- {name}\n")
    kustomization.write_text(text)
    return rendered_objects(copy)


def test_addresses_of_load_balancers(tmp_path: Path) -> None:
    objects = with_components(tmp_path, "load-balancer")
    (daemon_set,) = (each for each in objects if each["kind"] == "DaemonSet")
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    added = container["securityContext"]["capabilities"]["add"]
    assert added == ["NET_BIND_SERVICE", "NET_ADMIN", "NET_RAW"]
    config_maps = {each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap"}
    assert {each["configMapRef"]["name"] for each in container["envFrom"]} == config_maps
    found = examples("load-balancer/load-balancer.env")
    ranges = parse_pool(found.pop("lb_pool")).ranges
    assert [str(each) for each in ranges] == [
        "192.0.2.10-192.0.2.50",
        "2001:db8::10-2001:db8::50",
    ]
    assert found == {"lb": "node"}


def test_metallbs_objects(tmp_path: Path) -> None:
    objects = with_components(tmp_path, "load-balancer", "metallb-objects")
    (daemon_set,) = (each for each in objects if each["kind"] == "DaemonSet")
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    assert {"name": "UPROXY_LB", "value": "metallb"} in container["env"]
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


def test_flags_are_known_to_the_program(rendered: dict[str, dict[str, Any]]) -> None:
    (container,) = rendered["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    arguments = [each.replace("$(NODE_NAME)", "n1") for each in container["args"]]
    command = [sys.executable, "-m", "uproxy.cli", *arguments]
    for extra, code in (([], 0), (["--no-such-flag"], 2)):
        done = subprocess.run([*command, *extra, "--help"], capture_output=True, check=False)
        assert done.returncode == code, done.stderr


def test_it_has_longer_to_end_than_flows_have() -> None:
    daemon_set = yaml.safe_load((KUSTOMIZE / "daemon-set.yaml").read_text())
    pod = daemon_set["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= Config().drain_timeout + 10
