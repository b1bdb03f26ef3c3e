"""The manifests that run uproxy in a cluster: they render, and allow what is needed and no more."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from uproxy.config.settings import Config

ROOT = Path(__file__).parents[2]
KUSTOMIZE = ROOT / "deploy" / "kustomize"


@pytest.fixture(scope="module")
def rendered() -> dict[str, dict[str, Any]]:
    """By kind."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUSTOMIZE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}


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
