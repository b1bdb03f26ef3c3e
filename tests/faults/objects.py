"""Objects of a cluster, by chance: most of them as they should be."""

from __future__ import annotations

import random
from typing import Any, Final

NODE: Final = "here"
POISON: Final = "s9"
"""A Service that causes an unexpected exception, if a fault of the kind "derive" is injected."""
POOL: Final = "203.0.113.128-203.0.113.129"
"""Two addresses for up to five Services."""
_NAMES: Final = ("s0", "s1", "s2", "s3", POISON)
_ODD: Final[tuple[dict[str, Any], ...]] = (
    {"ports": [{"port": -5}]},
    {"ports": "none"},
    {"clusterIP": 7, "ports": [{"port": 80}]},
    {"type": "NodePort", "clusterIP": "10.96.0.99", "ports": [{"port": 10**400}]},
)


def some_service(rng: random.Random, name: str = "") -> dict[str, Any]:
    name = name or rng.choice(_NAMES)
    number = _NAMES.index(name) + 1
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "creationTimestamp": f"2024-01-0{number}T00:00:00Z",
    }
    if rng.random() < 0.1:
        return {"metadata": metadata, "spec": rng.choice(_ODD)}
    ports = [_port(rng, number, protocol) for protocol in rng.choice((("TCP",), ("TCP", "UDP")))]
    spec: dict[str, Any] = {
        "type": rng.choice(("ClusterIP", "NodePort", "LoadBalancer")),
        "clusterIP": f"10.96.0.{number}",
        "ports": ports,
    }
    if rng.random() < 0.3:
        spec["sessionAffinity"] = "ClientIP"
    if rng.random() < 0.3:
        spec["externalIPs"] = [rng.choice(("192.0.2.1", "203.0.113.77"))]
    if rng.random() < 0.2:
        spec["internalTrafficPolicy"] = "Local"
    status: dict[str, Any] = {}
    if spec["type"] == "ClusterIP":
        for each in ports:
            del each["nodePort"]
    elif rng.random() < 0.5:
        spec["externalTrafficPolicy"] = "Local"
        if spec["type"] == "LoadBalancer":
            spec["healthCheckNodePort"] = 32000 + rng.randrange(3)
    if spec["type"] == "LoadBalancer" and rng.random() < 0.8:
        status = {"loadBalancer": {"ingress": [{"ip": f"203.0.113.{number}"}]}}
    return {"metadata": metadata, "spec": spec, "status": status}


def _port(rng: random.Random, number: int, protocol: str) -> dict[str, Any]:
    port = rng.choice((80, 80 + number))
    node_port = 30000 + rng.choice((0, number))
    return {
        "name": f"main-{protocol.lower()}",
        "port": port,
        "protocol": protocol,
        "nodePort": node_port,
    }


def some_slice(rng: random.Random) -> dict[str, Any]:
    name = rng.choice(_NAMES)
    endpoints = [
        {
            "addresses": [f"198.51.100.{rng.randrange(1, 9)}"],
            "nodeName": rng.choice((NODE, "there")),
            "conditions": {"ready": rng.random() < 0.8},
        }
        for _ in range(rng.randrange(4))
    ]
    return {
        "metadata": {
            "name": f"{name}-{rng.randrange(2)}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [
            {"name": "main-tcp", "port": 8080, "protocol": "TCP"},
            {"name": "main-udp", "port": 8080, "protocol": "UDP"},
        ],
    }


def node(rng: random.Random, name: str = NODE) -> dict[str, Any]:
    labels = {"topology.kubernetes.io/zone": rng.choice("ab")}
    address = "192.0.2.1" if name == NODE else "192.0.2.2"
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": "198.51.100.0/25"},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }
