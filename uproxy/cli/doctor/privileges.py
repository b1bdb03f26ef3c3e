"""What needs a privilege or a program of the system."""

from __future__ import annotations

from typing import Final

from uproxy.cli.doctor.facts import Machine
from uproxy.cli.doctor.findings import Finding, Result

_NO_PODS: Final = "it only shows pods the client's address, and this machine has no pods"


def low_ports(machine: Machine) -> Finding:
    if "NET_BIND_SERVICE" in machine.capabilities:
        return Finding("ports below 1024", Result.OK, "allowed by CAP_NET_BIND_SERVICE")
    start = machine.number("net.ipv4.ip_unprivileged_port_start", 1024)
    if start <= 1:
        return Finding("ports below 1024", Result.OK, "allowed for every user")
    text = (
        f"ports below {start} are not allowed: ClusterIPs and load-balancer IPs that use them fail"
    )
    advice = "grant CAP_NET_BIND_SERVICE, or: sysctl net.ipv4.ip_unprivileged_port_start=0"
    return Finding("ports below 1024", Result.WARN, text, advice)


def claims(machine: Machine) -> Finding:
    if "NET_ADMIN" in machine.capabilities:
        return Finding("CAP_NET_ADMIN", Result.OK, "granted")
    text = "missing: Service addresses that no interface of this machine has cannot be claimed"
    return Finding("CAP_NET_ADMIN", Result.WARN, text, "run as root, or grant CAP_NET_ADMIN")


def transparent(machine: Machine) -> Finding:
    if machine.transparent and not machine.has_pods:
        text = f"{machine.transparent}; {_NO_PODS}"
        return Finding("IP_TRANSPARENT", Result.OK, text)
    if machine.transparent:
        text = f"{machine.transparent}: pods see this node's address instead of the client's"
        advice = "grant CAP_NET_ADMIN, or use the PROXY protocol if the pods support it"
        return Finding("IP_TRANSPARENT", Result.WARN, text, advice)
    return Finding("IP_TRANSPARENT", Result.OK, "allowed")


def nft(machine: Machine) -> Finding:
    if machine.nft:
        return Finding("nft", Result.OK, "installed")
    if not machine.has_pods:
        return Finding("nft", Result.OK, f"not found; {_NO_PODS}")
    text = "not found; it is needed only to show pods the client's address"
    return Finding("nft", Result.WARN, text, "install the package nftables")
