"""What the API server fills in: cluster IPs, node ports, and defaults of Services."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from tests.fake_api.kinds import SERVICES, Kind

_FIRST_ADDRESSES = {
    "IPv4": IPv4Address("127.96.0.1"),
    "IPv6": IPv6Address("fd00:127:96::1"),
}
_FIRST_NODE_PORT = 30000

Spec = dict[str, Any]


class Allocator:
    """Hands out cluster IPs in 127.96.0.0/12 and fd00:127:96::/112, node ports from 30000 on."""

    def __init__(self) -> None:
        self._addresses = dict(_FIRST_ADDRESSES)
        self._node_port = _FIRST_NODE_PORT

    def address(self, family: str) -> str:
        self._addresses[family] += 1
        return str(self._addresses[family])

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
    spec.setdefault("internalTrafficPolicy", "Cluster")
    _set_addresses(spec, allocator)
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    if spec["type"] == "ClusterIP":
        return
    spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        if spec["externalTrafficPolicy"] == "Local" and not spec.get("healthCheckNodePort"):
            spec["healthCheckNodePort"] = allocator.node_port()
    if spec.get("allocateLoadBalancerNodePorts", True):
        for port in spec.get("ports") or ():
            if not port.get("nodePort"):
                port["nodePort"] = allocator.node_port()


def keep_assigned(data: dict[str, Any], before: dict[str, Any]) -> None:
    """What an update that does not mention it leaves as it was: status, addresses, node ports. What
    belongs to another type of Service goes, unless the update changes it."""
    if "status" in before:
        data.setdefault("status", before["status"])
    spec, old = data.get("spec"), before.get("spec")
    if not isinstance(spec, dict) or not isinstance(old, dict):
        return
    kind = spec.get("type", "ClusterIP")
    for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if field in old and kind != "ExternalName":
            spec.setdefault(field, old[field])
    _keep_node_ports(spec, old)
    if kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
        if "healthCheckNodePort" in old:
            spec.setdefault("healthCheckNodePort", old["healthCheckNodePort"])
    else:
        _drop(spec, old, "healthCheckNodePort")
    if kind != "LoadBalancer":
        _drop(spec, old, "allocateLoadBalancerNodePorts", "loadBalancerClass")
    if kind not in ("LoadBalancer", "NodePort"):
        _drop(spec, old, "externalTrafficPolicy")


def _keep_node_ports(spec: Spec, old: Spec) -> None:
    assigned = {_port_key(each): each.get("nodePort") for each in old.get("ports") or ()}
    for port in spec.get("ports") or ():
        number = assigned.get(_port_key(port))
        if spec.get("type", "ClusterIP") == "ClusterIP":
            if number == port.get("nodePort"):
                port.pop("nodePort", None)
        elif number:
            port.setdefault("nodePort", number)


def _set_addresses(spec: Spec, allocator: Allocator) -> None:
    """One address for each family that the policy asks for. The cluster has both."""
    first = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
    known = [first, *(spec.get("clusterIPs") or ())[1:]] if first else []
    families = list(spec.get("ipFamilies") or ())
    if not families and known != ["None"]:
        families = [f"IPv{ip_address(each).version}" for each in known]
    two = len(families) > 1 or len(known) > 1
    policy = spec.setdefault("ipFamilyPolicy", "RequireDualStack" if two else "SingleStack")
    families = families or ["IPv4"]
    if policy == "SingleStack":
        families = families[:1]
    elif len(families) == 1:
        families.append("IPv6" if families == ["IPv4"] else "IPv4")
    spec["ipFamilies"] = families
    if first == "None":
        spec["clusterIPs"] = ["None"]
        return
    by_family = {f"IPv{ip_address(each).version}": each for each in known}
    addresses = [by_family.get(each) or allocator.address(each) for each in families]
    spec["clusterIP"], spec["clusterIPs"] = addresses[0], addresses


def _drop(spec: Spec, old: Spec, *fields: str) -> None:
    for field in fields:
        if field in spec and spec[field] == old.get(field):
            del spec[field]


def _port_key(port: dict[str, Any]) -> tuple[Any, str]:
    return port.get("port"), port.get("protocol", "TCP")
