"""The configuration file of a real `uproxy run`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.e2e.program import PATIENCE

KUBE_PROXY = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
OWN = "apiVersion: uproxy.dev/v1alpha1\nkind: UproxyConfiguration\n"


def run(*args: str) -> subprocess.CompletedProcess[str]:
    """A run that ends by itself."""
    command = [sys.executable, "-m", "uproxy.cli", "run", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_the_written_configuration_is_what_it_was_made_of(tmp_path: Path) -> None:
    """And kube-proxy, which reads the first document only, finds its own there."""
    path, again = tmp_path / "c.yaml", tmp_path / "again.yaml"
    args = [
        "--manifests",
        "x",
        "--workers",
        "3",
        "--lb-pool",
        "192.0.2.1",
        "--metrics-bind-address=",
    ]
    done = run(*args, "--write-config-to", str(path))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith(f"the configuration is in {path}\n")
    first, second = path.read_text().split("---\n")
    assert first.startswith(KUBE_PROXY)
    assert second.startswith(OWN)
    assert "workers: 3\n" in second
    assert run("--config", str(path), "--write-config-to", str(again)).returncode == 0
    assert again.read_text() == path.read_text()


def test_a_configuration_that_cannot_be_written(tmp_path: Path) -> None:
    done = run("--write-config-to", str(tmp_path / "missing" / "c.yaml"))
    assert done.returncode == 2
    assert done.stderr == (
        f"uproxy run: --write-config-to: {tmp_path}/missing/c.yaml: No such file or directory\n"
    )


def test_a_variable_that_is_no_option_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uproxy.cli", "run", "--write-config-to", str(tmp_path / "c.yaml")],
        env={"UPROXY_WROKERS": "2", "UPROXY_SERVICE_HOST": "10.96.0.1"},
        capture_output=True,
        text=True,
        check=True,
    )
    (warning,) = (line for line in done.stderr.splitlines() if "WARNING" in line)
    assert warning.endswith("did you mean UPROXY_WORKERS?")
