"""Settings of the network stack."""

from __future__ import annotations

from typing import Final

from uproxy.cli.doctor.facts import Machine
from uproxy.cli.doctor.findings import Finding, Result, few
from uproxy.cli.doctor.port_ranges import covers
from uproxy.core.flows.capacity import BACKLOG

NODE_PORTS: Final = (30000, 32767)
"""--service-node-port-range of the API server, by default."""


def ipv6(machine: Machine) -> Finding:
    if machine.ipv6:
        text = f"{machine.ipv6}: Services are served over IPv4 only"
        return Finding("IPv6", Result.WARN, text, "sysctl net.ipv6.conf.all.disable_ipv6=0")
    return Finding("IPv6", Result.OK, "works")


def rp_filter(machine: Machine) -> Finding:
    names = machine.strict_interfaces
    if len(names) > 1:  # With a single interface, answers leave where packets came in.
        text = f"strict on {few(names)}: packets are"
        text += " dropped if answers to them would leave through another interface"
        advice = "sysctl net.ipv4.conf.all.rp_filter=2"
        return Finding("rp_filter", Result.WARN, text, advice)
    return Finding("rp_filter", Result.OK, "not strict")


def backlog(machine: Machine) -> Finding:
    most = machine.number("net.core.somaxconn", BACKLOG)
    if most >= BACKLOG:
        return Finding("backlog", Result.OK, f"net.core.somaxconn is {most}")
    text = f"net.core.somaxconn is {most}: in bursts, some clients connect a second late"
    return Finding("backlog", Result.WARN, text, f"sysctl net.core.somaxconn={BACKLOG}")


def accept_queues(machine: Machine) -> Finding:
    """With tcp_migrate_req, the kernel moves clients that wait in the queue of a socket that is
    closed to another one of its SO_REUSEPORT group. The control process keeps all sockets of a
    group open, and closes them together once their queues are empty (the tests of listening sockets
    run with both values)."""
    name = "tcp_migrate_req"
    if machine.number("net.ipv4.tcp_migrate_req"):
        return Finding(name, Result.OK, "on; uproxy works with it and without it")
    text = "off, and not needed: clients in the queue of a worker wait for the next worker"
    return Finding(name, Result.OK, text)


def node_ports(machine: Machine) -> Finding:
    """Outgoing connections take local ports at random, which may be those of NodePorts."""
    ephemeral = machine.sysctls.get("net.ipv4.ip_local_port_range", "32768 60999")
    first, last = map(int, ephemeral.split())
    low, high = max(first, NODE_PORTS[0]), min(last, NODE_PORTS[1])
    reserved = machine.sysctls.get("net.ipv4.ip_local_reserved_ports", "")
    if low > high or covers(reserved, low, high):
        return Finding("NodePorts", Result.OK, "outgoing connections do not use their ports")
    text = f"outgoing connections may take ports {low}-{high}, which are for NodePorts"
    value = ",".join(filter(None, (reserved, f"{low}-{high}")))
    advice = f"sysctl net.ipv4.ip_local_reserved_ports={value}"
    return Finding("NodePorts", Result.WARN, text, advice)


def time_wait(machine: Machine) -> Finding:
    if machine.sysctls.get("net.ipv4.tcp_tw_reuse") == "0":
        text = "tcp_tw_reuse is 0: each backend gets at most about 28,000 connections a minute"
        return Finding("TIME_WAIT", Result.WARN, text, "sysctl net.ipv4.tcp_tw_reuse=1")
    return Finding("TIME_WAIT", Result.OK, "local ports are reused at once")
