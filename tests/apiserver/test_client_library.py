"""An installation without the extra `cluster` serves everything but clusters, and says how to get
them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_api.kubeconfigs import write_kubeconfig
from uproxy.apiserver import client_library
from uproxy.config.settings import Config
from uproxy.control import startup

ADVICE = (
    "reading a cluster needs kubernetes_asyncio, which is not installed: "
    "pip install 'uproxy[cluster]'"
)
WITHOUT = """
import sys
sys.modules["kubernetes_asyncio"] = None  # Python takes this for a module that is not there.
sys.argv[0] = "uproxy"
from uproxy.cli import main
main()
"""


def run(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *words],
        env={"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    return write_kubeconfig(tmp_path / "kubeconfig", "https://192.0.2.1:6443")


def test_asking_for_a_cluster_is_one_line(kubeconfig: Path, tmp_path: Path) -> None:
    done = run("run", "--kubeconfig", str(kubeconfig), home=tmp_path)
    assert done.returncode == 2
    (line,) = [each for each in done.stderr.splitlines() if " waiting for " not in each]
    assert line.endswith(ADVICE)


def test_without_a_cluster_that_is_not_what_is_missing(tmp_path: Path) -> None:
    done = run("run", home=tmp_path)
    assert done.returncode == 2
    assert "nothing to serve" in done.stderr
    assert ADVICE not in done.stderr


async def test_a_last_known_state_does_not_hide_it(
    kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be served for ever: no installation changes a process that runs already."""
    monkeypatch.setattr(startup, "has_snapshot", lambda *_: True)
    monkeypatch.setitem(sys.modules, "kubernetes_asyncio", None)
    config = Config(kubeconfig=kubeconfig, node_name="here", state_dir=tmp_path)
    with pytest.raises(client_library.NotInstalled, match="uproxy\\[cluster]"):
        async with startup.running(config):
            raise AssertionError("it cannot have started")
