"""A small cluster network in namespaces, made of documentation addresses.

    client ──┐            ┌── pod1, pod2 ... on the node's own bridge, or each on a link of its own
             lan ── node ─┘
             │
             └──── node2 ───── remote1 ...

The LAN is 192.0.2.0/24 and 2001:db8:1::/64. The pods of `node` are in 198.51.100.0/25 and
2001:db8:2::/64, those of `node2` in 198.51.100.128/25 and 2001:db8:2:1::/64; all of them are
routed, without address translation. 203.0.113.0/24 and 2001:db8:3::/64 are for virtual addresses:
no host has them, and all hosts send them to `node`.

Sockets of the test process can be made in any namespace (setns(2) changes one thread, and a socket
stays where it was made), so clients and pods need no processes of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Final

import pytest

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_number = count()
_PREFIX = "uproxy-test-"

LAN = ("192.0.2.0/24", "2001:db8:1::/64")
PODS = ("198.51.100.0/24", "2001:db8:2::/63")
VIRTUAL = ("203.0.113.0/24", "2001:db8:3::/64")

_SYSCTLS = {
    "ipv6/conf/all/accept_dad": 0,  # An address that is being checked cannot be bound.
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/router_solicitations": 0,
    "ipv4/icmp_ratemask": 0,  # "Port unreachable" comes each time.
    "ipv6/icmp/ratelimit": 0,
}
_ROUTER = {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1}
_NO_BRIDGE_FILTER = {"bridge/bridge-nf-call-iptables": 0, "bridge/bridge-nf-call-ip6tables": 0}
HAS_BRIDGE_FILTER: Final = os.path.isdir("/proc/sys/net/bridge")
"""Whether the kernel has br_netfilter, which shows bridged packets to rules for routed ones."""


class PodNetwork(Enum):
    """How the pods of a node are connected to it."""

    BRIDGE = "bridge"
    """One bridge for all of them, as the bridge plugin, flannel and k3s make it. Bridged packets
    pass the rules of family inet, as kube-proxy needs it, where the kernel has br_netfilter."""
    UNFILTERED_BRIDGE = "bridge without br_netfilter"
    """A bridge whose packets pass the rules of family bridge only."""
    PTP = "ptp"
    """A link and a host route for each pod, as the ptp plugin, kindnet and Calico make them."""


class Namespace:
    """One network namespace. Made and removed by `namespace`."""

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role
        self._descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)

    def __repr__(self) -> str:
        return f"<Namespace {self.role}>"

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread makes sockets, and starts processes, in here."""
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _enter(self._descriptor)
            try:
                yield
            finally:
                _enter(outside)
        finally:
            os.close(outside)

    def socket(self, family: int, kind: int) -> socket.socket:
        """A socket that stays in here."""
        with self.inside():
            return socket.socket(family, kind)

    def command(self, *words: str) -> list[str]:
        """Words for subprocess: they run in here, as the process itself, with a /sys of here."""
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, *words: str, timeout: float = 60, check: bool = True) -> str:
        """Run a command to its end; returns what it printed."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{self.role}: {' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Carry out lines of ip(8)."""
        words = ["ip", "-n", self.name, "-batch", "-"]
        done = subprocess.run(
            words, input="\n".join(lines), capture_output=True, text=True, check=False
        )
        assert not done.returncode, f"{self.role}: {lines}: {done.stderr}"

    def addresses(self) -> str:
        return self.run("ip", "-br", "addr")

    def sysctl(self, **values: int) -> None:
        """Set values under /proc/sys/net; "__" stands for "/"."""
        self.write_sysctls({name.replace("__", "/"): value for name, value in values.items()})

    def write_sysctls(self, values: dict[str, int]) -> None:
        script = "; ".join(f"echo {value} >/proc/sys/net/{name}" for name, value in values.items())
        self.run("sh", "-e", "-c", script)


@contextmanager
def namespace(role: str) -> Iterator[Namespace]:
    """A new namespace with its loopback interface up; gone at the end."""
    name = f"{_PREFIX}{os.getpid()}-{next(_number)}-{role}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        made = Namespace(name, role)
        try:
            made.write_sysctls(_SYSCTLS)
            made.ip("link set lo up")
            yield made
        finally:
            made.close()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@dataclass(slots=True)
class Place:
    """A namespace with the addresses that others know it by."""

    space: Namespace
    ipv4: str
    ipv6: str

    def address(self, family: str) -> str:
        return self.ipv6 if family == "IPv6" else self.ipv4


@dataclass(slots=True)
class World:
    """The network of the picture above."""

    client: Place
    node: Place
    node2: Place
    local: list[Place] = field(default_factory=list)
    """Pods on `node`."""
    remote: list[Place] = field(default_factory=list)
    """Pods on `node2`."""
    lan: Namespace | None = None

    @property
    def second(self) -> tuple[str, str]:
        """The other addresses of `node` in the LAN."""
        return "192.0.2.11", "2001:db8:1::11"

    @property
    def node_addresses(self) -> set[str]:
        """The addresses of both nodes, those towards their pods included."""
        nodes = (self.node, self.node2)
        gateways = (each for first in (0, 128) for each in _gateways(first))
        return {each for place in nodes for each in (place.ipv4, place.ipv6)}.union(
            self.second, gateways
        )


@contextmanager
def world(
    *, local: int = 2, remote: int = 1, pods: PodNetwork = PodNetwork.BRIDGE
) -> Iterator[World]:
    """The network, with so many pods on each node; gone at the end."""
    with ExitStack() as stack:

        def new(role: str) -> Namespace:
            return stack.enter_context(namespace(role))

        lan = new("lan")
        lan.ip("link add br0 type bridge forward_delay 0", "link set br0 up")
        client = Place(new("client"), "192.0.2.100", "2001:db8:1::100")
        node = Place(new("node"), "192.0.2.1", "2001:db8:1::1")
        node2 = Place(new("node2"), "192.0.2.2", "2001:db8:1::2")
        for index, place in enumerate((client, node, node2)):
            plug(place.space, lan, f"p{index}", f"{place.ipv4}/24", f"{place.ipv6}/64")
        made = World(client, node, node2, lan=lan)
        _routes(client.space, node, "198.51.100.0/25", "2001:db8:2::/64", *VIRTUAL)
        _routes(client.space, node2, "198.51.100.128/25", "2001:db8:2:1::/64")
        _routes(node.space, node2, "198.51.100.128/25", "2001:db8:2:1::/64")
        _routes(node2.space, node, "198.51.100.0/25", "2001:db8:2::/64", *VIRTUAL)
        node.space.ip(*(f"addr add {each} dev eth0 nodad" for each in _with_lan(made.second)))
        for place, places, number, first in (
            (node, made.local, local, 0),
            (node2, made.remote, remote, 128),
        ):
            place.space.write_sysctls(_ROUTER)
            if pods is not PodNetwork.PTP:
                _pod_bridge(place.space, first, pods)
            for index in range(number):
                role = f"{'remote' if first else 'pod'}{index + 1}"
                places.append(_pod(new(role), place.space, index, first, pods))
        yield made


def _with_lan(pair: tuple[str, str]) -> tuple[str, str]:
    return f"{pair[0]}/24", f"{pair[1]}/64"


def _gateways(first: int) -> tuple[str, str]:
    """The addresses of a node towards its pods, which have addresses after `first`."""
    return f"198.51.100.{first + 1}", _canonical(f"2001:db8:2:{first and 1}::1")


def _canonical(ipv6: str) -> str:
    """The spelling in which sockets say an address."""
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, ipv6))


def _pod_bridge(space: Namespace, first: int, pods: PodNetwork) -> None:
    if pods is PodNetwork.UNFILTERED_BRIDGE and HAS_BRIDGE_FILTER:
        space.write_sysctls(_NO_BRIDGE_FILTER)
    ipv4, ipv6 = _gateways(first)
    space.ip(
        "link add cbr0 type bridge forward_delay 0",
        "link set cbr0 up",
        f"addr add {ipv4}/25 dev cbr0",
        f"addr add {ipv6}/64 dev cbr0 nodad",
    )


def _pod(space: Namespace, node: Namespace, index: int, first: int, pods: PodNetwork) -> Place:
    ipv6 = _canonical(f"2001:db8:2:{first and 1}::{2 + index}")
    pod = Place(space, f"198.51.100.{first + 2 + index}", ipv6)
    gateways = _gateways(first)
    if pods is PodNetwork.PTP:
        _link(pod, node, f"veth{index}", gateways)
    else:
        plug(space, node, f"veth{index}", f"{pod.ipv4}/25", f"{pod.ipv6}/64", bridge="cbr0")
    space.ip(f"route add default via {gateways[0]}", f"route add ::/0 via {gateways[1]} dev eth0")
    return pod


def _link(pod: Place, node: Namespace, port: str, gateways: tuple[str, str]) -> None:
    """Give a pod an eth0 on a link of its own, in the way of the ptp plugin: each end of each link
    has the address of a single host, and the node has a route of scope host to the pod."""
    pod.space.ip(f"link add eth0 type veth peer name {port} netns {node.name}")
    node.ip(
        f"link set {port} up",
        f"addr add {gateways[0]}/32 dev {port}",
        f"addr add {gateways[1]}/128 dev {port} nodad",
        f"route add {pod.ipv4} dev {port} scope host",
        f"route add {pod.ipv6} dev {port}",
    )
    pod.space.ip(
        "link set eth0 up",
        f"addr add {pod.ipv4}/32 dev eth0",
        f"addr add {pod.ipv6}/128 dev eth0 nodad",
        f"route add {gateways[0]} dev eth0 scope link",
        f"route add {gateways[1]} dev eth0",
    )


def plug(
    space: Namespace, into: Namespace, port: str, *addresses: str, bridge: str = "br0"
) -> None:
    """Give a namespace an eth0 that is connected to a bridge of another one."""
    space.ip(f"link add eth0 type veth peer name {port} netns {into.name}")
    into.ip(f"link set {port} master {bridge} up")
    space.ip(
        "link set eth0 up", *(f"addr add {each} dev eth0 {_nodad(each)}" for each in addresses)
    )


def _routes(space: Namespace, via: Place, *networks: str) -> None:
    space.ip(
        *(f"route add {each} via {via.ipv6 if ':' in each else via.ipv4}" for each in networks)
    )


def _nodad(address: str) -> str:
    return "nodad" if ":" in address else ""


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def wait_listening(space: Namespace, address: str, port: int, patience: float = 20) -> None:
    """Wait until a process in there accepts TCP connections."""
    deadline = time.monotonic() + patience
    while True:
        with space.socket(family_of(address), socket.SOCK_STREAM) as sock:
            if sock.connect_ex((address, port)) == 0:
                return
        assert time.monotonic() < deadline, f"no process listens on {address}:{port}"
        time.sleep(0.005)


@functools.cache
def why_not() -> str:
    """Why there can be no namespaces here; "" if there can."""
    if os.geteuid():
        return "needs root"
    if shutil.which("ip") is None:
        return "needs ip (Debian: iproute2)"
    _remove_leftovers()
    name = f"{_PREFIX}{os.getpid()}-trial"
    tried = subprocess.run(
        ["ip", "netns", "add", name], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        return f"needs network namespaces: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


def _remove_leftovers() -> None:
    """Namespaces of test processes that were killed."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/run/netns"):
            pid = name.removeprefix(_PREFIX).split("-")[0]
            if name.startswith(_PREFIX) and not os.path.exists(f"/proc/{pid}"):
                subprocess.run(["ip", "netns", "del", name], check=False)


def needs(*tools: str) -> Sequence[pytest.MarkDecorator]:
    """Marks for a module (`pytestmark = needs("dig")`): skip, with the reason, where it can't run.

    A tool is a command; "dig=bind9-dnsutils" names the Debian package where that differs.
    """
    reason = why_not()
    for tool in tools:
        command, _, package = tool.partition("=")
        if not reason and shutil.which(command, path=PATH) is None:
            reason = f"needs {command} (Debian: {package or command})"
    return [pytest.mark.needs_root, pytest.mark.skipif(bool(reason), reason=reason)]


PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
