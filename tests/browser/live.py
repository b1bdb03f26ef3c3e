"""A real uproxy under traffic, with Services in many states."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.e2e.pods import Pod, pod, visit
from tests.e2e.program import Program, endpoints, program, service, wait_for, write
from tests.ports import free_port

PAUSE: Final = 0.02
"""Seconds between two rounds of traffic."""
LONGEST: Final = "2001:db8:85a3:1111:2222:8a2e:3370:7334"
"""An address as long as they get."""
PORTS: Final = {
    "default/wide:main/TCP": "conflict",
    "default/empty:main/TCP": "paused",
    "default/far:main/TCP": "elsewhere",
    "default/broken:main/TCP": "serving",
    "default/names:main/UDP": "serving",
    "default/web:main/TCP": "serving",
}
"""The Service ports, problems first, and the state that each gets. After 10 s of failures "broken"
becomes degraded, which is tested elsewhere."""


@contextmanager
def live(directory: Path) -> Iterator[str]:
    """The URL of the page."""
    manifests = directory / "manifests"
    manifests.mkdir()
    with ExitStack() as stack:
        pods = [stack.enter_context(pod(f"web-{number}")) for number in range(2)]
        port, broken = free_port(), free_port()
        write(manifests, "services.yaml", *_services(pods, port, broken))
        running = stack.enter_context(
            program(manifests, "--external-ip-cidrs", f"{LONGEST}/128", ready=False)
        )
        wait_for("every Service port", lambda: _states(running) == PORTS)
        stack.enter_context(_traffic(port, broken))
        yield f"http://127.0.0.1:{running.metrics}/"


def _states(running: Program) -> dict[str, str]:
    code, body = running.get(running.metrics, "/api/v1/summary")
    ports = json.loads(body)["ports"] if code == 200 else []
    return {f"{each['service']}:{each['port']}/{each['protocol']}": each["state"] for each in ports}


def _services(pods: list[Pod], port: int, broken: int) -> Iterator[dict[str, Any]]:
    def main(number: int, protocol: str = "TCP") -> list[dict[str, Any]]:
        return [{"name": "main", "port": 80, "nodePort": number, "protocol": protocol}]

    yield service("web", ports=main(port), externalIPs=["127.0.0.1"])
    yield from named(endpoints("web", pods))
    yield service("names", ports=main(port, "UDP"))
    yield from named(endpoints("names", pods, protocol="UDP"))
    yield service("wide", ports=main(port))
    yield from named(endpoints("wide", pods))
    yield service("broken", ports=main(broken))
    yield endpoint_slice("broken", "IPv4", "127.0.0.1", free_port())  # Nothing listens there.
    yield service("empty", ports=main(free_port()))
    far = {"name": "main", "port": 65535, "protocol": "TCP"}
    families = {"clusterIP": "fd00:10:96::77", "ipFamilies": ["IPv6"]}
    yield service("far", type="ClusterIP", ports=[far], externalIPs=[LONGEST], **families)
    yield endpoint_slice("far", "IPv6", LONGEST.replace("7334", "7335"), 65535)


def named(slices: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same EndpointSlices, which name the pods."""
    for each in slices:
        for endpoint in each["endpoints"]:
            name = each["metadata"]["name"].split("-main-")[1]
            endpoint["targetRef"] = {"kind": "Pod", "namespace": "default", "name": name}
        yield each


def endpoint_slice(name: str, family: str, address: str, port: int) -> dict[str, Any]:
    """An EndpointSlice of one pod that is not there."""
    pod = {"kind": "Pod", "namespace": "default", "name": f"{name}-7d9f8b6c5d-x2lqz"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": family,
        "ports": [{"name": "main", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "targetRef": pod}],
    }


@contextmanager
def _traffic(port: int, broken: int) -> Iterator[None]:
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(PAUSE):
            for number in (port, broken):
                with contextlib.suppress(OSError):
                    visit("127.0.0.1", number)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
