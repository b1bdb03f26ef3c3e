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

ROOT = Path(__file__).parents[2]
KUSTOMIZE = ROOT / "deploy" / "kustomize"


def render(directory: Path) -> dict[str, dict[str, Any]]:
    """The objects by kind."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", str(directory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}


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


def test_the_example_of_an_address_is_understood() -> None:
    lines = (KUSTOMIZE / "api-server.env").read_text().splitlines()
    (example,) = (each.removeprefix("#") for each in lines if "=" in each)
    name, _, value = example.partition("=")
    (flag,) = (each for each in run.params if each.envvar == name)
    assert flag.name == "apiserver_address"
    assert parse_server_addresses(value) == ("192.0.2.1:6443", "192.0.2.2:6443")
    assert all(each.startswith("#") for each in lines), "uproxy finds the API server by itself"


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
