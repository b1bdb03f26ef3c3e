"""uproxy where it has privileges over its own network namespace only, as in rootless k3s."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.io_uring import REFUSAL

NAMESPACES = ["unshare", "--user", "--map-root-user", "--net"]


@functools.cache
def can_be_rootless() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    attempt = [*NAMESPACES, "ip", "link", "set", "lo", "up"]
    return subprocess.run(attempt, capture_output=True, check=False).returncode == 0


def rootless_node(folder: Path) -> dict[str, Any]:
    if not can_be_rootless():
        pytest.skip("user namespaces with network namespaces are needed")
    done = subprocess.run(
        [*NAMESPACES, sys.executable, "-m", "tests.netns.rootless_node", str(folder)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_addresses_are_claimed_and_released_in_a_user_namespace(tmp_path: Path) -> None:
    found = rootless_node(tmp_path)
    assert (found["clusterIP"], found["nodePort"]) == ("a", "a")
    assert found["left"] == ""
    assert set(found["engines"]) == {"epoll" if REFUSAL else "io_uring"}
