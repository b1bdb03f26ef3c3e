"""A real `uproxy run` process on manifests that the test writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.pods import Pod
from tests.ports import free_port

PATIENCE = 40.0
"""Seconds until a condition that does not come true fails the test. On a busy machine with two
processors, a start may take ten seconds."""


def wait_for(what: str, condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.005)


def service(name: str, *, ports: Sequence[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    """A Service; `spec` in the API's own words."""
    status = spec.pop("status", {})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "NodePort", "ports": list(ports), **spec},
        "status": status,
    }


def endpoints(
    name: str, pods: Sequence[Pod], *, port: str = "main", protocol: str = "TCP", node: str = "here"
) -> list[dict[str, Any]]:
    """EndpointSlices for a Service, one for each pod, as each has its own port number."""
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{port}-{pod.name}",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"name": port, "port": pod.port, "protocol": protocol}],
            "endpoints": [
                {
                    "addresses": [pod.address],
                    "nodeName": node,
                    "targetRef": {"kind": "Pod", "name": pod.name, "namespace": "default"},
                }
            ],
        }
        for pod in pods
    ]


class Program:
    """A running uproxy, and what it says about itself."""

    def __init__(
        self, process: subprocess.Popen[str], log: Path, health: int, metrics: int
    ) -> None:
        self.process = process
        self.health = health
        self.metrics = metrics
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Status and body; status 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def status(self) -> Any:
        """/api/v1/routes"""
        code, body = self.get(self.metrics, "/api/v1/routes")
        assert code == 200, f"{code} {body}"
        return json.loads(body)

    def frontend(self, text: str) -> dict[str, Any]:
        """One frontend of the status, {} if there is none."""
        found = [each for each in self.status()["frontends"] if each["frontend"] == text]
        return found[0] if found else {}

    def counts(self, text: str) -> dict[str, Any]:
        counts: dict[str, Any] = self.frontend(text)["counts"]
        return counts

    def worker_pids(self) -> list[int]:
        return [each["pid"] for each in self.status()["workers"]]

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"ended by itself:\n{self.log}"
            return self.get(self.health, "/readyz")[0] == 200

        wait_for("readyz", ready)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def program(
    directory: Path,
    *options: str,
    workers: int = 2,
    ready: bool = True,
    source: Sequence[str] | None = None,
    ports: tuple[int, int] | None = None,
    wrapper: Sequence[str] = (),
) -> Iterator[Program]:
    """Run uproxy on the manifests of a directory, or on another source, given as options.

    `ports`: for health and metrics, where something else than options says so. `wrapper` goes
    before the command.
    """
    health, metrics = ports or (free_port(), free_port())
    log = directory.parent / f"{directory.name}-{health}.log"
    command = [*wrapper, sys.executable, "-m", "uproxy.cli", "run"]
    command += ["--manifests", str(directory)] if source is None else source
    command += ["--healthz-bind-address", f"127.0.0.1:{health}"]
    command += ["--metrics-bind-address", f"127.0.0.1:{metrics}"]
    command += ["--workers", str(workers), "--hostname-override", "here"]
    # What is for the whole machine is tested in network namespaces.
    command += ["--preserve-client-ip", "never", "--claim-addresses", "never", *options]
    with log.open("w") as output:
        process = subprocess.Popen(command, stderr=output, stdout=output, text=True)
    try:
        running = Program(process, log, health, metrics)
        if ready:
            running.wait_ready()
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def write(directory: Path, name: str, *objects: dict[str, Any]) -> Path:
    """Write objects as one YAML file, atomically."""
    path = directory / name
    temporary = directory / f".{name}"
    temporary.write_text(yaml.safe_dump_all(objects))
    os.rename(temporary, path)
    return path
