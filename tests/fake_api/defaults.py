"""What the API server fills in: cluster IPs, node ports, and defaults of Services."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from tests.fake_api.kinds import SERVICES, Kind

_FIRST_ADDRESS = int(IPv4Address("127.96.0.1"))
_FIRST_NODE_PORT = 30000


class Allocator:
    """Hands out cluster IPs in 127.96.0.0/12, and node ports from 30000 on."""

    def __init__(self) -> None:
        self._address = _FIRST_ADDRESS
        self._node_port = _FIRST_NODE_PORT

    def address(self) -> str:
        self._address += 1
        return str(IPv4Address(self._address))

    def node_port(self) -> int:
        self._node_port += 1
        return self._node_port


def set_defaults(kind: Kind, data: dict[str, Any], allocator: Allocator) -> None:
    """Complete a Service in place; other kinds stay as they are."""
    if kind is not SERVICES or not isinstance(spec := data.setdefault("spec", {}), dict):
        return
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    data.setdefault("status", {"loadBalancer": {}})
    if spec["type"] == "ExternalName":
        return
    if not spec.get("clusterIP"):
        spec["clusterIP"] = allocator.address()
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
        if spec["type"] != "ClusterIP" and not port.get("nodePort"):
            port["nodePort"] = allocator.node_port()


def keep_assigned(data: dict[str, Any], before: dict[str, Any]) -> None:
    """What an update that does not mention it leaves as it was: status, cluster IPs, node ports."""
    if "status" in before:
        data.setdefault("status", before["status"])
    spec, old = data.get("spec"), before.get("spec")
    if isinstance(spec, dict) and isinstance(old, dict):
        for field in ("clusterIP", "clusterIPs"):
            if field in old and spec.get("type") != "ExternalName":
                spec.setdefault(field, old[field])
        assigned = {_port_key(each): each.get("nodePort") for each in old.get("ports") or ()}
        for port in spec.get("ports") or ():
            if spec.get("type", "ClusterIP") != "ClusterIP" and assigned.get(_port_key(port)):
                port.setdefault("nodePort", assigned[_port_key(port)])


def _port_key(port: dict[str, Any]) -> tuple[Any, str]:
    return port.get("port"), port.get("protocol", "TCP")
