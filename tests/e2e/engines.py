"""What a uproxy relays with that is started by other words, and what its doctor says about it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.pods import pod, visit
from tests.e2e.program import endpoints, program, service, write
from tests.ports import free_port

_ROOT = Path(__file__).parents[2]
_HERE = "127.0.0.1"


def doctor_on_io_uring(wrapper: Sequence[str]) -> dict[str, Any]:
    """The doctor's finding, when `wrapper` starts it."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", "uproxy.cli", "doctor", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=_ROOT,
    )
    (found,) = [each for each in json.loads(done.stdout) if each["check"] == "io_uring"]
    return dict(found)


def engines_that_serve(wrapper: Sequence[str], tmp_path: Path) -> set[str]:
    """The engines of the workers, when `wrapper` starts the program and a client was answered."""
    port = free_port()
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    with pod("a") as a:
        ports = [{"name": "main", "port": 80, "nodePort": port}]
        write(manifests, "web.yaml", service("web", ports=ports), *endpoints("web", [a]))
        with program(manifests, wrapper=wrapper) as running:
            assert visit(_HERE, port) == "a"
            return {each["engine"] for each in running.status()["workers"]}
