"""Addresses that are never claimed, as they belong to other machines. A node that claimed one would
talk to itself instead: it would lose its API server, its gateway, its DNS, or another node.

What an interface of this node has is not claimed, so it may be served whatever it is.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from uproxy.core.cluster.host_addresses import HostAddresses
from uproxy.core.route import FrontendKind
from uproxy.core.routing.options import RoutingOptions

_SERVICES_OF_CLOUDS: Final = {
    "100.100.100.200": "a cloud's metadata service",  # Alibaba
    "168.63.129.16": "a cloud's DNS and health service",  # Azure
    "fd00:ec2::253": "a cloud's DNS service",  # AWS
    "fd00:ec2::254": "a cloud's metadata service",  # AWS
    "fd20:ce::254": "a cloud's metadata service",  # Google
}
"""Those that are not link-local, as 169.254.169.254 is."""


@dataclass(frozen=True, slots=True)
class ReservedAddresses:
    """All addresses that must not be claimed. Not to be asked about ClusterIPs that are wanted."""

    options: RoutingOptions
    hosts: HostAddresses

    def __contains__(self, address: object) -> bool:
        if address in self.hosts.own:
            return True
        kind = FrontendKind.EXTERNAL_IP
        return bool(why_reserved(str(address), kind, self.options, self.hosts))


def why_reserved(
    address: str, kind: FrontendKind, options: RoutingOptions, hosts: HostAddresses
) -> str:
    """Whose address it is that may not be claimed, to complete "X is ..."; "" if it may.

    What this node asks by address may be a Service itself, at its ClusterIP: DNS, for one. Nor does
    what others say of themselves count against a ClusterIP: each kubelet writes the addresses of
    its Node, and with that of the cluster's DNS it would take it from all nodes.
    """
    listed = kind is FrontendKind.CLUSTER_IP or options.serve_unallocated
    # The API server does not let it be an externalIP either, for what listens there is meant for
    # this node alone. In manifests, loopback addresses are useful for trying things out.
    if not listed and (address.startswith("127.") or address == "::1"):
        return "a loopback address"
    if address in options.local_addresses or address in hosts.own:
        return ""
    by_machine = _by_nature(address) or options.hosts.get(address, "")
    if kind is FrontendKind.CLUSTER_IP:
        return by_machine
    return options.servers.get(address) or hosts.of(address) or by_machine


@lru_cache(maxsize=65536)
def _by_nature(address: str) -> str:
    if ipaddress.ip_address(address).is_link_local:
        return "a link-local address"
    return _SERVICES_OF_CLOUDS.get(address, "")
