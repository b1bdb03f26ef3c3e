"""Facts about this machine that decide whether it can announce addresses of load balancers."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from uproxy.cli.doctor.facts import capabilities, own_ports, running_status
from uproxy.core.allocation.pool_syntax import PoolRanges
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.ip import parse_ip
from uproxy.core.report.load_balancer_format import LoadBalancerView
from uproxy.core.report.status_format import StatusView
from uproxy.core.route import FrontendKind
from uproxy.host import netlink
from uproxy.host.essential_addresses import gateways, name_servers
from uproxy.host.other_proxies import find_other_proxies
from uproxy.host.segments import Segment, read_segments

_PERMANENT: Final = 0x80  # IFA_F_PERMANENT
_LOCAL, _ADDRESS, _FLAGS = 2, 1, 8  # IFA_*
_OURS: Final = bytes((netlink.OUR_PROTOCOL,))
_PROGRAMS: Final = {
    "speaker": "MetalLB's speaker",
    "kube-vip": "kube-vip",
    "lbnodeagent": "PureLB",
    "openelb-speaker": "OpenELB",
}
"""Programs that announce addresses of load balancers, by the names of their processes."""
_KLIPPER: Final = "k3s ServiceLB (a pod svclb-...)"

T = TypeVar("T")


class InterfaceAddress(NamedTuple):
    """An address of an interface."""

    address: str
    interface: int
    """Its index."""
    permanent: bool
    """False for one that DHCP gave, for example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcing:
    """All facts. They are the only input of the checks."""

    pools: Mapping[str, Sequence[AddressRange]]
    """The pools that were given, or that a running uproxy has."""
    announce: str = "l2"
    capabilities: frozenset[str] = frozenset()
    segments: Mapping[str, Segment] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    """Addresses that no Service may have, each with what it is."""
    leased: Mapping[str, str] = field(default_factory=dict)
    """Addresses of interfaces that are there for a time only, as DHCP gives them, each with its
    interface."""
    without_ipv6: frozenset[str] = frozenset()
    """Interfaces on which IPv6 is switched off."""
    arp_ignore: Mapping[str, int] = field(default_factory=dict)
    """net.ipv4.conf.*.arp_ignore by interface, as it is in effect."""
    proxies: Sequence[str] = ()
    """Other service proxies of this machine."""
    programs: Sequence[str] = ()
    """Other programs here that announce addresses of load balancers."""
    in_pod_network: bool = False
    """Whether this is a Pod that is not in the node's network."""
    status: LoadBalancerView | None = None
    """What a running uproxy says."""


def examine_load_balancer(given: Iterable[PoolRanges]) -> Announcing | None:
    """Find all facts; None if no pool is given and no running uproxy assigns addresses."""
    status = running_status(own_ports(os.environ)[0])
    found = status.load_balancer if status is not None else None
    pools = _pools(given) or _pools_of(found)
    if not pools and found is None:
        return None
    segments: Mapping[str, Segment] = _or(lambda: read_segments(), {})
    here = list(interface_addresses(_or(lambda: list(netlink.dump_addresses()), [])))
    return Announcing(
        pools=pools,
        announce=found.announce if found is not None else "l2",
        capabilities=capabilities(_read(Path("/proc/self/status"))),
        segments=segments,
        own=dict(_own(status, here)),
        leased=dict(_leased(here, segments)),
        without_ipv6=frozenset(without_ipv6(Path("/proc/sys/net/ipv6/conf"))),
        arp_ignore=dict(arp_ignore(Path("/proc/sys/net/ipv4/conf"))),
        proxies=find_other_proxies(),
        programs=tuple(sorted(set(programs(Path("/proc"))))),
        in_pod_network=in_pod_network([name for _, name in socket.if_nameindex()], os.environ),
        status=found,
    )


def _pools(given: Iterable[PoolRanges]) -> Mapping[str, Sequence[AddressRange]]:
    found: dict[str, list[AddressRange]] = {}
    for name, ranges in given:
        found.setdefault(name, []).extend(ranges)
    return found


def _pools_of(found: LoadBalancerView | None) -> Mapping[str, Sequence[AddressRange]]:
    pools = found.pools if found is not None else []
    return {each.name: tuple(_parsed(each.ranges)) for each in pools}


def _parsed(ranges: Iterable[str]) -> Iterator[AddressRange]:
    for text in ranges:
        try:
            yield AddressRange.parse(text)
        except ValueError:  # Another version of uproxy may write them in another way.
            continue


def _own(status: StatusView | None, here: Iterable[InterfaceAddress]) -> Iterator[tuple[str, str]]:
    """Of an address that is several things, the last one counts."""
    for each in status.frontends if status is not None else ():
        if each.kind == FrontendKind.CLUSTER_IP:
            yield each.address, f"the ClusterIP of {each.service}"
        for backend in each.backends:
            address = parse_ip(backend.rpartition(":")[0].strip("[]"))
            if address is not None:
                yield address, f"the address of a pod of {each.service}"
    yield from ((each, "a DNS server of this node") for each in name_servers())
    nothing: frozenset[str] = frozenset()
    yield from ((each, "this node's gateway") for each in _or(gateways, nothing))
    yield from ((each.address, "an address of this node") for each in here)


def interface_addresses(messages: Iterable[memoryview]) -> Iterator[InterfaceAddress]:
    """The addresses of interfaces, from netlink's messages, without those that uproxy announces."""
    for message in messages:
        _, _, flags, _, index = netlink.ADDRESS.unpack_from(message)
        found = dict(netlink.attributes(message[netlink.ADDRESS.size :]))
        if _FLAGS in found:
            (flags,) = struct.unpack_from("=I", found[_FLAGS])
        address = found.get(_LOCAL) or found.get(_ADDRESS)
        if address and found.get(netlink.ADDRESS_PROTOCOL, b"") != _OURS:
            text = str(ipaddress.ip_address(bytes(address)))
            yield InterfaceAddress(text, index, bool(flags & _PERMANENT))


def _leased(
    here: Iterable[InterfaceAddress], segments: Mapping[str, Segment]
) -> Iterator[tuple[str, str]]:
    """IPv6 addresses are left out: routers announce their lifetimes, and share none of them."""
    names = {each.index: name for name, each in segments.items()}
    for each in here:
        if not each.permanent and ":" not in each.address and each.interface in names:
            yield each.address, names[each.interface]


def without_ipv6(directory: Path) -> Iterator[str]:
    """Interfaces on which IPv6 is switched off, from a directory like /proc/sys/net/ipv6/conf."""
    for each in directory.glob("*/disable_ipv6"):
        if _read(each).strip() == "1":
            yield each.parent.name


def arp_ignore(directory: Path) -> Iterator[tuple[str, int]]:
    """The value for each interface; the higher one of "all" and its own is in effect."""
    values = {each.parent.name: _number(_read(each)) for each in directory.glob("*/arp_ignore")}
    everywhere = values.pop("all", 0)
    yield from ((name, max(everywhere, value)) for name, value in values.items())


def programs(root: Path) -> Iterator[str]:
    """Programs that announce addresses too, from a directory like /proc."""
    for each in root.glob("[0-9]*/comm"):
        name, directory = _read(each).strip(), each.parent
        if name in _PROGRAMS and (name != "speaker" or _is_metallb(directory)):
            yield _PROGRAMS[name]
        elif name == "entry" and _is_klipper(directory):
            yield _KLIPPER


def _is_metallb(process: Path) -> bool:
    """Other programs are called "speaker", too. MetalLB's is started with its own flags."""
    return "--port=" in _read(process / "cmdline")


def _is_klipper(process: Path) -> bool:
    """The pods of k3s ServiceLB run a script, /usr/bin/entry, which makes rules and then waits. Its
    variables say for which port; reading them takes the same user or CAP_SYS_PTRACE."""
    variables = {each.partition("=")[0] for each in _read(process / "environ").split("\0")}
    return "/usr/bin/entry" in _read(process / "cmdline") and {"SRC_PORT", "DEST_PORT"} <= variables


def in_pod_network(interfaces: Iterable[str], variables: Mapping[str, str]) -> bool:
    """Whether this is a Pod with a network of its own. A node has more interfaces than eth0: at
    least those of its pods."""
    return "KUBERNETES_SERVICE_HOST" in variables and set(interfaces) <= {"lo", "eth0"}


def _number(text: str) -> int:
    return int(text) if text.strip().isdecimal() else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _or(read: Callable[[], T], otherwise: T) -> T:
    """What can be read, or something else."""
    try:
        return read()
    except OSError:
        return otherwise
