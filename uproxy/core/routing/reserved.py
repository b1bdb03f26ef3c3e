"""Addresses that are never claimed, because they belong to other machines.

A node that claimed one would talk to itself instead of that machine: it would lose its API server,
its gateway, its DNS server or another node. An address of this node's own interfaces needs no
claim, so Services may be served there whatever it is.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from uproxy.core.cluster.host_addresses import HostAddresses
from uproxy.core.cluster.load_balancer import Assigning
from uproxy.core.route import FrontendKind
from uproxy.core.routing.options import RoutingOptions

_SERVICES_OF_CLOUDS: Final = {
    "100.100.100.200": "a cloud's metadata service",  # Alibaba
    "168.63.129.16": "a cloud's DNS and health service",  # Azure
    "fd00:ec2::253": "a cloud's DNS service",  # AWS
    "fd00:ec2::254": "a cloud's metadata service",  # AWS
    "fd20:ce::254": "a cloud's metadata service",  # Google
}
"""Servers of clouds whose addresses are not link-local. 169.254.169.254, for example, is."""


@dataclass(frozen=True, slots=True)
class ReservedAddresses:
    """The addresses that must not be claimed, as a container.

    It does not know what kind of frontend an address is for, so it must not be asked about wanted
    ClusterIPs, for which other rules hold.
    """

    options: RoutingOptions
    hosts: HostAddresses

    def __contains__(self, address: object) -> bool:
        if address in self.hosts.own:
            return True
        kind = FrontendKind.EXTERNAL_IP
        return bool(why_reserved(str(address), kind, self.options, self.hosts))


def why_reserved(
    address: str,
    kind: FrontendKind,
    options: RoutingOptions,
    hosts: HostAddresses,
    *,
    assigned: bool = False,
) -> str:
    """What an address is if it must not be claimed, to complete "X is ..."; "" if it may be.
    `assigned`: uproxy itself has assigned the address to the Service.

    For ClusterIPs two of the rules do not hold. A server that this node depends on may itself be a
    Service, as DNS usually is. And the addresses in Node objects count for nothing: each kubelet
    writes its own, and one that wrote the ClusterIP of DNS would take it away on every node.
    """
    listed = kind is FrontendKind.CLUSTER_IP or options.serve_unallocated
    listed = listed or (assigned and options.assigning is Assigning.LOCALHOST)
    # The API server refuses a loopback address as externalIP too, since what listens there is meant
    # for this node alone. In manifests, loopback addresses are useful for trying things out.
    if not listed and (address.startswith("127.") or address == "::1"):
        return "a loopback address"
    if address in options.local_addresses or address in hosts.own:
        return ""
    by_machine = _by_nature(address) or options.reserved.get(address, "")
    if kind is FrontendKind.CLUSTER_IP:
        return by_machine
    return options.servers.get(address) or hosts.host_of(address) or by_machine


@lru_cache(maxsize=65536)
def _by_nature(address: str) -> str:
    if ipaddress.ip_address(address).is_link_local:
        return "a link-local address"
    return _SERVICES_OF_CLOUDS.get(address, "")
