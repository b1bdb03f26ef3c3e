"""Tables, which `kubectl get` asks for and prints as they come (meta.k8s.io/v1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tests.fake_api.kinds import SERVICES, Kind

Data = Mapping[str, Any]


def wants_table(accept: str) -> bool:
    return "as=Table" in accept.partition(",")[0]


def table(kind: Kind, objects: Sequence[Data], version: str) -> dict[str, Any]:
    """The table of some objects of a kind. Services have the columns of a real server."""
    columns = _SERVICE_COLUMNS if kind is SERVICES else _COLUMNS
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [
            {"name": name, "type": "string", "format": "", "description": "", "priority": 0}
            for name in columns
        ],
        "rows": [
            {
                "cells": [cell(each) for cell in columns.values()],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": each["metadata"],
                },
            }
            for each in objects
        ],
    }


def _age(data: Data) -> str:
    created = data["metadata"].get("creationTimestamp")
    if created is None:
        return "<unknown>"
    return f"{(datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds():.0f}s"


def _external(data: Data) -> str:
    ingress = data.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
    addresses = [each.get("ip") or each.get("hostname", "") for each in ingress]
    addresses += data["spec"].get("externalIPs") or ()
    none = "<pending>" if data["spec"]["type"] == "LoadBalancer" else "<none>"
    return ",".join(addresses) or none


def _ports(data: Data) -> str:
    return ",".join(
        f"{each['port']}"
        + (f":{number}" if (number := each.get("nodePort")) else "")
        + f"/{each['protocol']}"
        for each in data["spec"].get("ports") or ()
    )


_COLUMNS: dict[str, Callable[[Data], str]] = {
    "Name": lambda data: str(data["metadata"]["name"]),
    "Age": _age,
}
_SERVICE_COLUMNS: dict[str, Callable[[Data], str]] = {
    "Name": _COLUMNS["Name"],
    "Type": lambda data: str(data["spec"]["type"]),
    "Cluster-IP": lambda data: data["spec"].get("clusterIP") or "<none>",
    "External-IP": _external,
    "Port(s)": _ports,
    "Age": _age,
}
