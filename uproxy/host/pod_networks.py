"""Which pods live on this node, as its routes say, and which of them share a bridge.

Network plugins differ, but all of them give this node a route to each of its own pods, or to all of
them, that needs no gateway: a network on a bridge (bridge, flannel), or a host route for each pod
(ptp, kindnet, Calico, Amazon VPC). Other nodes' pods are behind a gateway or a tunnel.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from uproxy.core.ip import Network, parse_network

_TUNNELS: Final = frozenset({"bareudp", "geneve", "gretap", "ip6gretap", "vxlan"})
"""Kinds of interfaces that look like Ethernet, behind which are other nodes."""


class Hop(NamedTuple):
    """Where a route leads; a route with several paths has several."""

    interface: int
    gateway: bool
    """Whether a router is the next hop. If not, the destination is on the link."""


class LinkRoute(NamedTuple):
    """A unicast route of the main table."""

    network: str
    hops: tuple[Hop, ...]


class Interface(NamedTuple):
    """A network interface."""

    name: str
    kind: str
    """What `ip -d link` calls it, such as "bridge" or "veth"; "" for most physical ones."""
    ethernet: bool
    mac: str = ""


class Segment(NamedTuple):
    """A network of this node's pods behind one interface. If two of its pods talk to each other,
    this node's IP stack does not see the packets."""

    network: str
    interface: int
    name: str
    bridge_mac: str
    """The address of the bridge; "" where the interface is not a Linux bridge."""


class PodNetworks(NamedTuple):
    """The pods that live on this node."""

    pods: tuple[str, ...] = ()
    """CIDRs. They may contain addresses of this node too, such as that of a bridge."""
    segments: tuple[Segment, ...] = ()
    """Those of them that are more than one pod."""


def local_pod_networks(
    routes: Iterable[LinkRoute], interfaces: Mapping[int, Interface], networks: Sequence[str]
) -> PodNetworks:
    """The networks of the pods that live here; `networks` are those of all pods of the cluster.

    An interface with a gateway leads to other machines, even if it has a route without one:
    on Amazon VPC, the subnet of all nodes and pods is on the link of eth0.
    """
    clusters = [network for each in networks if (network := parse_network(each)) is not None]
    uplinks: set[tuple[int, int]] = set()
    on_link: dict[Network, int] = {}
    for route in routes:
        version = 6 if ":" in route.network else 4
        if any(hop.gateway for hop in route.hops) or len(route.hops) != 1:
            uplinks.update((version, hop.interface) for hop in route.hops)
        elif clusters:
            network = ipaddress.ip_network(route.network)
            if any(_contains(each, network) for each in clusters):
                on_link[network] = route.hops[0].interface
    here = [
        (network, index)
        for network, index in sorted(on_link.items(), key=_order)
        if (network.version, index) not in uplinks and _may_have_pods(interfaces.get(index))
    ]
    return PodNetworks(
        pods=tuple(str(network) for network, _ in here),
        segments=tuple(
            _segment(network, index, interfaces[index])
            for network, index in here
            if network.num_addresses > 1
        ),
    )


def _order(found: tuple[Network, int]) -> tuple[int, int, int]:
    network, _ = found
    return network.version, int(network.network_address), network.prefixlen


def _contains(cluster: Network, network: Network) -> bool:
    # To mypy, subnet_of takes networks of the same class only.
    return cluster.version == network.version and network.subnet_of(cluster)  # type: ignore[arg-type]


def _may_have_pods(interface: Interface | None) -> bool:
    """Interfaces without Ethernet addresses are tunnels, such as those of WireGuard."""
    return interface is not None and interface.ethernet and interface.kind not in _TUNNELS


def _segment(network: Network, index: int, interface: Interface) -> Segment:
    mac = interface.mac if interface.kind == "bridge" else ""
    return Segment(str(network), index, interface.name, mac)
