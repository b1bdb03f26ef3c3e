"""What the facts about a machine mean for uproxy: ok, a warning or a failure, and what to do.

A failure names something without which uproxy cannot work. A warning concerns only some Services or
loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import takewhile
from typing import Final, NamedTuple

import msgspec

from uproxy.apiserver.candidates import ServerAddress
from uproxy.cli.doctor.facts import HEALTHZ_PORT, METRICS_PORT, Machine
from uproxy.cli.doctor.port_ranges import covers
from uproxy.core.flows.capacity import BACKLOG
from uproxy.core.printable import printable

NODE_PORTS: Final = (30000, 32767)
"""--service-node-port-range of the API server, by default."""

_SPARE: Final = 1024
"""Descriptors of a worker that flows cannot have: for listeners, pipes and the control channel."""
_FEWEST: Final = 256
_WATCHES: Final = 8192
_PIPE_PAGES: Final = 2 * 32 * 256
"""For 32 spliced flows at a time with 1 MiB in each of two directions."""


class Result(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    check: str
    result: Result
    text: str
    """What was found, and what it means if that is not obvious."""
    advice: str = ""
    """What to do; "" if there is nothing to do."""


class Load(NamedTuple):
    """How much uproxy is to serve on the machine."""

    max_flows: int
    workers: int


def check(machine: Machine, load: Load) -> Iterator[Finding]:
    """The findings of all checks, the most fundamental ones first."""
    for one in _CHECKS:
        yield fit_to_print(one(machine))
    yield descriptors(machine, load)


def api_servers(addresses: Sequence[ServerAddress]) -> Iterator[Finding]:
    """Whether the API server answers at one of its addresses; nothing if there are none."""
    silent = "; ".join(
        f"{each.server} ({each.origin}): {each.reason}" for each in addresses if each.reason
    )
    answering = [each for each in addresses if not each.reason]
    if not addresses:
        return
    if not answering:
        advice = "give an address that works without a service proxy: --apiserver-address HOST:PORT"
        finding = Finding("API server", Result.FAIL, f"does not answer: {silent}", advice)
    else:
        text = f"answers at {answering[0].server}, from {answering[0].origin}"
        result = Result.OK if not addresses[0].reason else Result.WARN
        finding = Finding("API server", result, f"{text}; not at {silent}" if silent else text)
    yield fit_to_print(finding)


def failed(findings: Iterable[Finding]) -> bool:
    """Whether uproxy cannot work."""
    return any(each.result is Result.FAIL for each in findings)


def python(machine: Machine) -> Finding:
    version = ".".join(map(str, machine.python))
    if machine.python < (3, 11):
        return Finding("python", Result.FAIL, version, "uproxy needs Python 3.11 or newer")
    return Finding("python", Result.OK, f"{version} on {machine.system}")


def uvloop(machine: Machine) -> Finding:
    if not machine.uvloop:
        return Finding("uvloop", Result.FAIL, "missing", "pip install 'uvloop>=0.23'")
    if _version(machine.uvloop) < (0, 23):
        text = f"{machine.uvloop}, which may close file descriptors of other flows"
        return Finding("uvloop", Result.FAIL, text, "pip install 'uvloop>=0.23'")
    return Finding("uvloop", Result.OK, machine.uvloop)


def epoll(machine: Machine) -> Finding:
    if not machine.epoll:
        return Finding("epoll", Result.FAIL, "missing", "uproxy runs on Linux only")
    return Finding("epoll", Result.OK, "works")


def reuse_port(machine: Machine) -> Finding:
    if machine.reuse_port:
        advice = "workers cannot share ports without SO_REUSEPORT; use another kernel or sandbox"
        return Finding("SO_REUSEPORT", Result.FAIL, machine.reuse_port, advice)
    return Finding("SO_REUSEPORT", Result.OK, "works")


def splice(machine: Machine) -> Finding:
    if machine.splice:
        text = f"{machine.splice}: bulk transfers cost more CPU"
        return Finding("splice", Result.WARN, text, "nothing to do: only speed is lost")
    return Finding("splice", Result.OK, "works")


def io_uring(machine: Machine) -> Finding:
    if not machine.io_uring:
        return Finding("io_uring", Result.OK, "works")
    text = f"{machine.io_uring}: requests and datagrams cost a quarter more CPU"
    advice = "use Linux 6.1 or newer, and a sandbox or seccomp profile that allows it"
    if _number(machine, "kernel.io_uring_disabled"):
        advice = "sysctl kernel.io_uring_disabled=0"
    return Finding("io_uring", Result.WARN, text, advice)


def pipes(machine: Machine) -> Finding:
    pages = _number(machine, "fs.pipe-user-pages-soft")
    if not pages or pages >= _PIPE_PAGES or "SYS_RESOURCE" in machine.capabilities:
        return Finding("pipes", Result.OK, "enough for many bulk transfers at once")
    text = f"fs.pipe-user-pages-soft is {pages}: only a few bulk transfers at once can use splice"
    return Finding("pipes", Result.WARN, text, f"sysctl fs.pipe-user-pages-soft={_PIPE_PAGES}")


def ipv6(machine: Machine) -> Finding:
    if machine.ipv6:
        text = f"{machine.ipv6}: Services are served over IPv4 only"
        return Finding("IPv6", Result.WARN, text, "sysctl net.ipv6.conf.all.disable_ipv6=0")
    return Finding("IPv6", Result.OK, "works")


def low_ports(machine: Machine) -> Finding:
    if "NET_BIND_SERVICE" in machine.capabilities:
        return Finding("ports below 1024", Result.OK, "allowed by CAP_NET_BIND_SERVICE")
    start = _number(machine, "net.ipv4.ip_unprivileged_port_start", 1024)
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
    if machine.transparent:
        text = f"{machine.transparent}: pods see this node's address instead of the client's"
        advice = "grant CAP_NET_ADMIN, or use the PROXY protocol if the pods support it"
        return Finding("IP_TRANSPARENT", Result.WARN, text, advice)
    return Finding("IP_TRANSPARENT", Result.OK, "allowed")


def nft(machine: Machine) -> Finding:
    if machine.nft:
        return Finding("nft", Result.OK, "installed")
    text = "not found; it is needed only to show pods the client's address"
    return Finding("nft", Result.WARN, text, "install the package nftables")


def bridges(machine: Machine) -> Finding:
    name = "pods behind a bridge"
    if not machine.bridges:
        return Finding(name, Result.OK, "this machine has no bridge")
    if not machine.nft or "NET_ADMIN" not in machine.capabilities:
        return Finding(name, Result.OK, "not tried, as that takes nft and CAP_NET_ADMIN")
    if not machine.bridge_rules:
        return Finding(name, Result.OK, "can be shown to each other")
    text = f"pods behind {_few(machine.bridges)} see this node's address in place of each other's:"
    advice = "use a kernel whose nftables has the family bridge (CONFIG_NF_TABLES_BRIDGE)"
    return Finding(name, Result.WARN, f"{text} {machine.bridge_rules}", advice)


def client_addresses(machine: Machine) -> Finding:
    name = "clients' addresses"
    if not machine.masqueraded:
        running = "userspace" in machine.taken_ports.values()
        text = "pods see those that their Services ask for" if running else "no uproxy runs here"
        return Finding(name, Result.OK, text)
    reasons = [f"{count} because {reason}" for reason, count in machine.masqueraded.items()]
    text = f"some Service ports show this node's address to pods: {'; '.join(reasons[:3])}"
    advice = "uproxy explain SERVICE; docs/client-address.md says what to do"
    return Finding(name, Result.WARN, text + " ..." * (len(reasons) > 3), advice)


def rp_filter(machine: Machine) -> Finding:
    names = machine.strict_interfaces
    if len(names) > 1:  # With a single interface, answers leave where packets came in.
        text = f"strict on {_few(names)}: packets are"
        text += " dropped if answers to them would leave through another interface"
        advice = "sysctl net.ipv4.conf.all.rp_filter=2"
        return Finding("rp_filter", Result.WARN, text, advice)
    return Finding("rp_filter", Result.OK, "not strict")


def backlog(machine: Machine) -> Finding:
    most = _number(machine, "net.core.somaxconn", BACKLOG)
    if most >= BACKLOG:
        return Finding("backlog", Result.OK, f"net.core.somaxconn is {most}")
    text = f"net.core.somaxconn is {most}: in bursts, some clients connect a second late"
    return Finding("backlog", Result.WARN, text, f"sysctl net.core.somaxconn={BACKLOG}")


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


def inotify(machine: Machine) -> Finding:
    watches = _number(machine, "fs.inotify.max_user_watches", _WATCHES)
    instances = _number(machine, "fs.inotify.max_user_instances", 128)
    if watches >= _WATCHES and instances >= 16:
        return Finding("inotify", Result.OK, f"{watches:,} watches")
    text = f"{watches:,} watches, {instances} instances: changes to manifests may be noticed late"
    advice = f"sysctl fs.inotify.max_user_watches={_WATCHES} fs.inotify.max_user_instances=128"
    return Finding("inotify", Result.WARN, text, advice)


def other_proxy(machine: Machine) -> Finding:
    """kube-proxy has the same default ports, and its rules take packets before sockets get them."""
    name = "other proxies"
    cleanup = "stop it, and remove its rules: kube-proxy --cleanup"
    if machine.proxies:
        text = f"{'; '.join(machine.proxies)}: its rules take packets before uproxy does"
        return Finding(name, Result.WARN, text, cleanup)
    if not machine.taken_ports:
        text = f"ports {METRICS_PORT} and {HEALTHZ_PORT} are free"
        return Finding(name, Result.OK, text)
    mode = next(filter(None, machine.taken_ports.values()), "")
    if mode == "userspace":
        return Finding(name, Result.OK, "uproxy is running here; see: uproxy status")
    if mode:
        text = f"kube-proxy runs here in mode {mode}; its rules take packets before uproxy does"
        return Finding(name, Result.WARN, text, cleanup)
    ports = "port " if len(machine.taken_ports) == 1 else "ports "
    ports += " and ".join(map(str, machine.taken_ports))
    advice = "choose other ports with --metrics-bind-address and --healthz-bind-address"
    return Finding(name, Result.WARN, f"another program listens on {ports}", advice)


def descriptors(machine: Machine, load: Load) -> Finding:
    """A TCP flow takes two descriptors of its worker."""
    limit = machine.descriptors
    if limit < _FEWEST:
        text = f"only {limit} open files per process, too few to start"
        return Finding("descriptors", Result.FAIL, text, "ulimit -n 65536, or LimitNOFILE=65536")
    room = max(limit - _SPARE, limit // 2) // 2 * load.workers
    if room < load.max_flows:
        wanted = 2 * -(-load.max_flows // load.workers) + _SPARE
        workers = "1 worker" if load.workers == 1 else f"{load.workers} workers"
        text = f"{limit:,} open files per process allow about {room:,} TCP flows in {workers};"
        text += f" further clients wait, although --max-flows is {load.max_flows:,}"
        advice = f"ulimit -Hn {wanted}, or LimitNOFILE={wanted} (systemd)"
        return Finding("descriptors", Result.WARN, text, advice)
    text = f"enough for --max-flows {load.max_flows:,}"
    return Finding("descriptors", Result.OK, text)


_CHECKS: Final[tuple[Callable[[Machine], Finding], ...]] = (
    python,
    uvloop,
    epoll,
    reuse_port,
    splice,
    io_uring,
    pipes,
    ipv6,
    low_ports,
    claims,
    transparent,
    nft,
    bridges,
    client_addresses,
    rp_filter,
    backlog,
    node_ports,
    time_wait,
    inotify,
    other_proxy,
)


def fit_to_print(finding: Finding) -> Finding:
    """Names of interfaces and answers on ports may contain anything."""
    text, advice = printable(finding.text), printable(finding.advice)
    return msgspec.structs.replace(finding, text=text, advice=advice)


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{' ...' * (len(names) > 3)}"


def _number(machine: Machine, name: str, otherwise: int = 0) -> int:
    text = machine.sysctls.get(name, "")
    return int(text) if text.isdecimal() else otherwise


def _version(text: str) -> tuple[int, ...]:
    """The leading numbers: "0.23.1.dev0" is (0, 23, 1)."""
    return tuple(map(int, takewhile(str.isdecimal, text.split("."))))
