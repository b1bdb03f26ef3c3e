"""Manifests for uproxy: the measured Services, and a cluster of others that get no traffic."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.wire.places import Place, Service

_NAMESPACE = "bench"


def measured(services: Sequence[Service], places: Mapping[str, Place]) -> list[dict[str, Any]]:
    """A Service of type ClusterIP for each, so that listeners are bound as the peers' are."""
    objects = []
    for each in services:
        place = places[each.name]
        objects.append(service(each.name, place, each.protocol))
        objects.append(endpoint_slice(each.name, [each.backend], each.protocol))
    return objects


def bystanders(count: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Services, each with its slice, on cluster IPs in 127.96.0.0/16."""
    return [
        (
            service(name_of(index), Place(f"127.96.{index >> 8}.{index & 255}", 8080), "TCP"),
            bystander_slice(index, 0),
        )
        for index in range(count)
    ]


def bystander_slice(index: int, generation: int) -> dict[str, Any]:
    """The EndpointSlice of a Service without traffic; each generation has a different second
    endpoint."""
    last = 1 + generation % 250
    backends = [Place(f"127.97.{index >> 8}.{index & 255}", 8080), Place(f"127.98.0.{last}", 8080)]
    return endpoint_slice(name_of(index), backends, "TCP")


def name_of(index: int) -> str:
    return f"bystander-{index}"


def write(path: Path, objects: Sequence[dict[str, Any]]) -> None:
    """Write objects as one List, atomically."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    os.rename(temporary, path)


def service(name: str, place: Place, protocol: str) -> dict[str, Any]:
    """A Service of type ClusterIP at that address and port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": _NAMESPACE},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": place.host,
            "ports": [{"name": "main", "port": place.port, "protocol": protocol}],
        },
    }


def endpoint_slice(
    name: str, backends: Sequence[Place], protocol: str, node: str = ""
) -> dict[str, Any]:
    """The backends of a Service. `node`: where they run, if that matters."""
    on_node = {"nodeName": node} if node else {}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": _NAMESPACE,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "main", "port": backends[0].port, "protocol": protocol}],
        "endpoints": [{"addresses": [each.host], **on_node} for each in backends],
    }
