"""Other programs that serve Services on this machine."""

from __future__ import annotations

from uproxy.cli.doctor.facts import Machine
from uproxy.cli.doctor.findings import Finding, Result


def kube_proxy(machine: Machine) -> bool:
    """Whether a kube-proxy runs here, or its rules are left."""
    modes = {mode for mode in machine.taken_ports.values() if mode not in ("", "userspace")}
    return bool(modes) or any("kube-proxy" in each for each in machine.proxies)


def other_proxy(machine: Machine) -> Finding:
    """kube-proxy has the same default ports, and its rules take packets before sockets get them."""
    name = "other proxies"
    cleanup = "stop it, and remove its rules: kube-proxy --cleanup"
    # With a name of its own, uproxy serves what kube-proxy leaves alone: only ports matter then.
    apart = bool(machine.service_proxy_name)
    if machine.proxies and not apart:
        text = f"{'; '.join(machine.proxies)}: its rules take packets before uproxy does"
        return Finding(name, Result.WARN, text, cleanup)
    if not machine.taken_ports:
        metrics, health = machine.own_ports
        text = f"ports {metrics} and {health} are free"
        return Finding(name, Result.OK, text)
    mode = next(filter(None, machine.taken_ports.values()), "")
    if mode == "userspace":
        return Finding(name, Result.OK, "uproxy is running here; see: uproxy status")
    if mode and not apart:
        text = f"kube-proxy runs here in mode {mode}; its rules take packets before uproxy does"
        return Finding(name, Result.WARN, text, cleanup)
    ports = "port " if len(machine.taken_ports) == 1 else "ports "
    ports += " and ".join(map(str, machine.taken_ports))
    advice = "choose other ports with --metrics-bind-address and --healthz-bind-address"
    return Finding(name, Result.WARN, f"another program listens on {ports}", advice)
