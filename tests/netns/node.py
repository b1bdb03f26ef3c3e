"""A real `uproxy run` process in the namespace of a node, and objects for it to serve."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.program import Program, service, wait_for, write
from tests.netns.kit import Namespace, Place

__all__ = ["Node", "program", "service", "slices", "wait_for", "write"]

HEALTH, METRICS = 10256, 10249


class Node(Program):
    """A running uproxy that is asked from within its namespace."""

    def __init__(self, process: subprocess.Popen[str], log: Path, space: Namespace) -> None:
        super().__init__(process, log, HEALTH, METRICS)
        self.space = space

    def get(self, port: int, path: str) -> tuple[int, str]:
        try:
            with self.space.inside():
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                connection.connect()
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            finally:
                connection.close()
        except OSError:
            return 0, ""

    def reasons(self, name: str) -> list[str]:
        """What the status says about a Service."""
        found = [each for each in self.status()["services"] if each["service"].endswith(f"/{name}")]
        return [each["reason"] for each in found]

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def program(
    space: Namespace,
    directory: Path,
    *options: str,
    workers: int = 1,
    ready: bool = True,
    wrapper: Sequence[str] = (),
    source: Sequence[str] = (),
    name: str = "here",
) -> Iterator[Node]:
    """Run uproxy on the manifests of a directory in a namespace, or on another source, given as
    options. `name` is the node's.

    `wrapper` goes before the command: words that start it with fewer privileges, for example.
    """
    log = directory.parent / f"{directory.name}-{space.role}.log"
    command = [*wrapper, sys.executable, "-m", "uproxy.cli", "run"]
    command += source or ["--manifests", str(directory)]
    command += ["--healthz-bind-address", f"127.0.0.1:{HEALTH}"]
    command += ["--metrics-bind-address", f"127.0.0.1:{METRICS}"]
    command += ["--workers", str(workers), "--hostname-override", name]
    command += ["--drain-timeout", "0s", *options]
    with log.open("a") as output:
        process = subprocess.Popen(
            space.command(*command), stderr=output, stdout=output, text=True, env=dict(os.environ)
        )
    try:
        running = Node(process, log, space)
        if ready:
            running.wait_ready()
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def slices(
    name: str,
    endpoints: Sequence[tuple[Place, str, str]],
    *,
    port: int = 8080,
    ports: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    """EndpointSlices of both families for a Service in the namespace "default".

    An endpoint is a place, the name of its node ("here" or another), and its state: "ready",
    "terminating" (and serving) or "dead" (not serving). Without `ports` there are a TCP port "t"
    and a UDP port "u", both with the number `port`.
    """
    numbers = list(ports) or [
        {"name": "t", "port": port, "protocol": "TCP"},
        {"name": "u", "port": port, "protocol": "UDP"},
    ]
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{family.lower()}",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": family,
            "ports": numbers,
            "endpoints": [
                {
                    "addresses": [place.address(family)],
                    "nodeName": node,
                    "conditions": _CONDITIONS[state],
                }
                for place, node, state in endpoints
            ],
        }
        for family in ("IPv4", "IPv6")
    ]


_CONDITIONS = {
    "ready": {"ready": True, "serving": True, "terminating": False},
    "terminating": {"ready": False, "serving": True, "terminating": True},
    "dead": {"ready": False, "serving": False, "terminating": True},
}
