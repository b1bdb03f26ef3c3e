"""The container of the DaemonSet, with its own arguments and variables, serves what it is for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.rendering import ROOT, container_of, kustomized, settings_of
from tests.netns.test_rootless import NAMESPACES, can_be_rootless

WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


def on_a_node(folder: Path, *components: str) -> Any:
    """What happens to Services on a node that runs the container with these components."""
    if not can_be_rootless():
        pytest.skip("user namespaces with network namespaces are needed")
    objects = kustomized(folder, *components)
    container = container_of(objects)
    state = folder / "state"
    state.mkdir()
    arguments = [
        each.replace("$(NODE_NAME)", "n1").replace("/var/lib/uproxy", str(state))
        for each in container["args"]
    ]
    privileged = "add" in container["securityContext"]["capabilities"]
    asked = {
        "args": arguments,
        "env": settings_of(objects),
        "wrapper": [] if privileged else WITHOUT_CAPABILITIES,
    }
    done = subprocess.run(
        [*NAMESPACES, sys.executable, "-m", "tests.netns.daemon_set_node", str(folder)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=110,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_in_place_of_kube_proxy_it_serves_what_has_no_label(tmp_path: Path) -> None:
    found = on_a_node(tmp_path, "replace-kube-proxy")
    assert found["clusterIP"] == ["plain", ""]
    assert found["nodePort"] == ["plain", ""]


def test_beside_kube_proxy_it_serves_what_has_the_label(tmp_path: Path) -> None:
    found = on_a_node(tmp_path, "alongside-kube-proxy")
    assert found["clusterIP"] == ["", "labelled"]
    assert found["nodePort"] == ["", "labelled"]


def test_without_privileges_it_serves_node_ports(tmp_path: Path) -> None:
    found = on_a_node(tmp_path, "alongside-kube-proxy", "unprivileged")
    assert found["nodePort"] == ["", "labelled"]
    assert found["clusterIP"] == ["", ""]
    states = {each["kind"]: each["state"] for each in found["status"]["frontends"]}
    assert states == {"ClusterIP": "elsewhere", "NodePort": "serving"}
