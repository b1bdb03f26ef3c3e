"""What the facts about a machine mean for announcing addresses of load balancers.

Nothing here is a failure: without announcing, everything else is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Final

from uproxy.cli.doctor.findings import Finding, Result, fit_to_print
from uproxy.cli.doctor.load_balancer_facts import Announcing
from uproxy.core.allocation.ranges import AddressRange
from uproxy.host.segments import Segment

_NO_ARP: Final = {
    2: "only to neighbours whose address is in the subnet of the address asked for, which an "
    "announced address has none of",
    8: "to no machine",
}
"""Values of arp_ignore with which the kernel does not answer for announced addresses."""
_IPVS: Final = "kube-ipvs0"
_SHOWN: Final = 3


def check_load_balancer(facts: Announcing) -> Iterator[Finding]:
    """The findings of all checks that concern this machine."""
    checks = [network_namespace, programs, statuses, overlaps]
    if facts.pools and facts.announce == "l2":
        wire = [carrier, wireless, arp, one_interface, ipv6, dhcp]
        checks = [capabilities, network_namespace, subnets, *wire, *checks[1:]]
    elif facts.pools and facts.announce == "routes":
        checks.insert(0, route_capability)
    for each in checks:
        yield fit_to_print(each(facts))


def capabilities(facts: Announcing) -> Finding:
    name = "announcing"
    if "NET_ADMIN" not in facts.capabilities:
        text = "CAP_NET_ADMIN is missing: this node cannot take an address, so it announces none"
        return Finding(name, Result.WARN, text, "run as root, or grant CAP_NET_ADMIN")
    if "NET_RAW" not in facts.capabilities:
        text = (
            "CAP_NET_RAW is missing: addresses are announced, but after a fail-over some neighbours"
            " learn it late, and another machine with the same address is not noticed"
        )
        return Finding(name, Result.WARN, text, "grant CAP_NET_RAW")
    return Finding(name, Result.OK, "CAP_NET_ADMIN and CAP_NET_RAW are granted")


def route_capability(facts: Announcing) -> Finding:
    if "NET_ADMIN" not in facts.capabilities:
        text = "CAP_NET_ADMIN is missing: no route can be added, so this node announces no address"
        return Finding("announcing", Result.WARN, text, "run as root, or grant CAP_NET_ADMIN")
    return Finding("announcing", Result.OK, "routes can be added; a routing daemon exports them")


def network_namespace(facts: Announcing) -> Finding:
    name = "network namespace"
    if facts.in_pod_network:
        text = "this is a Pod with a network of its own, where no client of the node's network asks"
        return Finding(name, Result.WARN, text, "set hostNetwork: true in the Pod")
    return Finding(name, Result.OK, "this is not a Pod with a network of its own")


def subnets(facts: Announcing) -> Finding:
    """An address is announced on the interface whose subnet holds it."""
    name = "pools and subnets"
    outside = [
        f"{each} of pool {pool}"
        for pool, ranges in facts.pools.items()
        for each in ranges
        if not _is_here(each, facts)
    ]
    if not outside:
        return Finding(name, Result.OK, "this machine is in the subnets of all pools")
    have = ", ".join(
        f"{interface} {subnet}"
        for interface, each in sorted(facts.segments.items())
        for subnet in each.subnets
    )
    text = (
        f"{_some(outside)}: no interface of this machine has this subnet ({have or 'it has none'})"
    )
    advice = "choose addresses of a subnet of the nodes, or use --announce routes, or --lb node"
    return Finding(name, Result.WARN, text, advice)


def carrier(facts: Announcing) -> Finding:
    name = "carrier"
    found = [interface for interface, each in _used(facts) if not each.carrier]
    if not found:
        return Finding(name, Result.OK, "the interfaces of these subnets are up and connected")
    text = f"{_some(found)} has no carrier: this node announces no address there until it has"
    advice = f"connect its cable or virtual network, or: ip link set {found[0]} up"
    return Finding(name, Result.WARN, text, advice)


def wireless(facts: Announcing) -> Finding:
    name = "wireless"
    used = dict(_used(facts))
    found = [interface for interface, each in used.items() if each.wireless]
    if not found:
        return Finding(name, Result.OK, "pools are not on wireless interfaces")
    text = f"{_some(found)}: many access points pass on no ARP for an address that they do not know"
    advice = f"use --lb node; or try: ip link set {found[0]} promisc on"
    return Finding(name, Result.WARN, text, advice)


def arp(facts: Announcing) -> Finding:
    """Whether this node answers for an address if, and only if, it announces it."""
    name = "ARP"
    silent = [
        f"net.ipv4.conf.{interface}.arp_ignore is {facts.arp_ignore[interface]}: it answers "
        f"{_NO_ARP[facts.arp_ignore[interface]]}"
        for interface, _ in _used(facts)
        if facts.arp_ignore.get(interface, 0) in _NO_ARP
    ]
    if silent:
        return Finding(name, Result.WARN, _some(silent), "set arp_ignore to 0 or 1")
    ipvs = any(_IPVS in each for each in facts.proxies)
    answering = [name for name, _ in _used(facts) if not facts.arp_ignore.get(name, 0)]
    if ipvs and answering:
        text = (
            f"{_IPVS} has the addresses of all Services, and the kernel answers for them on "
            f"{_some(answering)}: every node does, whichever announces an address"
        )
        advice = (
            "kube-proxy --ipvs-strict-arp, or: sysctl net.ipv4.conf.all.arp_ignore=1 "
            "net.ipv4.conf.all.arp_announce=2"
        )
        return Finding(name, Result.WARN, text, advice)
    return Finding(name, Result.OK, "answered for the addresses that this node has")


def one_interface(facts: Announcing) -> Finding:
    """The kernel answers ARP on every interface for all addresses of the machine, unless arp_ignore
    says otherwise. Then neighbours take either interface for the one that has an address."""
    name = "one interface"
    found = [
        f"{first} and {second} are both in {subnet}"
        for (first, one), (second, other) in combinations(_used(facts), 2)
        for subnet in sorted({*one.subnets} & {*other.subnets})
        if not (facts.arp_ignore.get(first, 0) and facts.arp_ignore.get(second, 0))
    ]
    if not found:
        return Finding(name, Result.OK, "one interface answers for an address")
    text = f"{_some(found)}: either answers for an address, and neighbours may take the wrong one"
    advice = (
        "join them in a bond, or: sysctl net.ipv4.conf.all.arp_ignore=1 "
        "net.ipv4.conf.all.arp_announce=2"
    )
    return Finding(name, Result.WARN, text, advice)


def ipv6(facts: Announcing) -> Finding:
    name = "IPv6 of pools"
    wanted = any(each.family == "IPv6" for ranges in facts.pools.values() for each in ranges)
    off = sorted(facts.without_ipv6 & facts.segments.keys()) if wanted else []
    if not off:
        return Finding(name, Result.OK, "on for all interfaces" if wanted else "not used")
    text = f"IPv6 is switched off on {_some(off)}, so no IPv6 address is announced there"
    return Finding(name, Result.WARN, text, f"sysctl net.ipv6.conf.{off[0]}.disable_ipv6=0")


def dhcp(facts: Announcing) -> Finding:
    """A DHCP server may give an address of the pool to another machine."""
    name = "DHCP"
    used = {interface for interface, _ in _used(facts)}
    found = [f"{each} on {where}" for each, where in facts.leased.items() if where in used]
    if not found:
        return Finding(name, Result.OK, "this machine's addresses in these subnets are permanent")
    text = f"{_some(found)} comes from DHCP, so a DHCP server gives out addresses of this subnet"
    advice = "keep the pools out of its range, in the settings of the DHCP server or router"
    return Finding(name, Result.WARN, text, advice)


def overlaps(facts: Announcing) -> Finding:
    """Such an address is never given to a Service, or harms whatever has it."""
    name = "addresses in pools"
    found = [
        f"{address} of pool {pool} is {what}"
        for address, what in facts.own.items()
        for pool, ranges in facts.pools.items()
        if any(address in each for each in ranges)
    ]
    if not found:
        return Finding(name, Result.OK, "none is known to be used for something else")
    advice = (
        "leave them out of the pool, or reserve them: --lb-reserve ADDRESS, or the annotation "
        "uproxy.dev/reserve of an IPAddressPool"
    )
    return Finding(name, Result.WARN, _some(found), advice)


def programs(facts: Announcing) -> Finding:
    name = "other announcers"
    if not facts.programs:
        return Finding(name, Result.OK, "none runs here")
    text = (
        f"{_some(facts.programs)} runs here: if both announce an address, clients lose connections"
    )
    return Finding(name, Result.WARN, text, "stop it before uproxy takes its addresses over")


def statuses(facts: Announcing) -> Finding:
    """What a running uproxy says."""
    name = "load balancer"
    status = facts.status
    if status is None:
        return Finding(name, Result.OK, "no uproxy that assigns addresses runs here")
    contradicted = [
        f"{each.address} is also answered for by {each.conflict}"
        for each in status.addresses
        if each.conflict
    ]
    foreign = [f"{each.service}: {each.foreign}" for each in status.services if each.foreign]
    if contradicted:
        advice = "find the machine with this MAC address; the pool must not overlap with DHCP"
        return Finding(name, Result.WARN, _some(contradicted), advice)
    if status.trouble or status.notes or any(each.reason for each in status.pools):
        pools = (f"pool {each.name}: {each.reason}" for each in status.pools if each.reason)
        text = _some([*filter(None, (status.trouble,)), *status.notes, *pools])
        return Finding(name, Result.WARN, text, "uproxy status")
    if foreign:
        text = f"another controller gives Services their addresses: {_some(foreign)}"
        advice = "stop it, or set spec.loadBalancerClass, so that each Service has one controller"
        return Finding(name, Result.WARN, text, advice)
    return Finding(name, Result.OK, "no contradiction, and no status of another controller")


def _is_here(wanted: AddressRange, facts: Announcing) -> bool:
    return any(_holds(each, wanted) for each in facts.segments.values())


def _holds(segment: Segment, wanted: AddressRange) -> bool:
    """Whether all addresses of a range are in one subnet of an interface."""
    found = map(AddressRange.parse, segment.subnets)
    return any(
        each.family == wanted.family and each.first <= wanted.first and wanted.last <= each.last
        for each in found
    )


def _used(facts: Announcing) -> Iterator[tuple[str, Segment]]:
    """The interfaces on which addresses of pools are announced."""
    for name, each in sorted(facts.segments.items()):
        if any(_holds(each, wanted) for ranges in facts.pools.values() for wanted in ranges):
            yield name, each


def _some(texts: Iterable[str]) -> str:
    found: Sequence[str] = list(dict.fromkeys(texts))
    more = len(found) - _SHOWN
    return "; ".join(found[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
