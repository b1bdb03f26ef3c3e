"""Services and EndpointSlices as clusters have them, in any number."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NODE = "bench-node"
PROBE = "probe"
PROBE_ADDRESS = "127.95.0.1"
FIRST_PORT = 8080
ENDPOINTS = 10


def service_name(number: int) -> str:
    return f"service-{number:05}"


def cluster_ip(number: int) -> str:
    return f"127.{100 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


def service(name: str, address: str, ports: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "bench",
            "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "bench"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "selector": {"app.kubernetes.io/name": name},
            "ports": [
                {"name": f"port-{each}", "port": FIRST_PORT + each, "targetPort": f"port-{each}"}
                for each in range(ports)
            ],
        },
    }


def endpoint(name: str, address: str, number: int) -> dict[str, Any]:
    return {
        "addresses": [address],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": f"node-{number % 100}",
        "zone": f"zone-{number % 3}",
        "targetRef": {
            "kind": "Pod",
            "namespace": "bench",
            "name": f"{name}-7d9c5b8f6d-{number:05}",
            "uid": f"8d3f6e2a-0000-4000-8000-{number:012}",
        },
    }


def endpoint_slice(
    name: str, endpoints: list[dict[str, Any]], ports: dict[str, int]
) -> dict[str, Any]:
    """With the time of the change that it comes from, as the controller writes it."""
    now = datetime.now(UTC)
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-abcde",
            "generateName": f"{name}-",
            "namespace": "bench",
            "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "app.kubernetes.io/name": name,
            },
            "annotations": {
                "endpoints.kubernetes.io/last-change-trigger-time": f"{now:%Y-%m-%dT%H:%M:%SZ}"
            },
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "name": name,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "addressType": "IPv4",
        "ports": [
            {"name": port, "port": number, "protocol": "TCP"} for port, number in ports.items()
        ],
        "endpoints": endpoints,
    }


def slice_of(number: int, ports: int, *, generation: int = 0) -> dict[str, Any]:
    """The slice of one of many Services; each generation has another first endpoint."""
    name = service_name(number)
    addresses = [
        f"10.{number // 250 % 250}.{number % 250}.{each + 1}" for each in range(1, ENDPOINTS)
    ]
    first = f"10.{250 + generation // 250 % 6}.{number % 250}.{generation % 250 + 1}"
    endpoints = [
        endpoint(name, address, number * ENDPOINTS + position)
        for position, address in enumerate([first, *addresses])
    ]
    return endpoint_slice(name, endpoints, {f"port-{each}": 80 + each for each in range(ports)})


def probe_slice(address: str, port: int) -> dict[str, Any]:
    return endpoint_slice(PROBE, [endpoint(PROBE, address, 0)], {"port-0": port})


def node() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"topology.kubernetes.io/zone": "zone-0"}},
        "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]},
    }


def namespace() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}
