"""spec.loadBalancerSourceRanges: who may connect to a load-balancer VIP."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from uproxy.core.ip import Network, family_of, parse_network


@dataclass(frozen=True, slots=True)
class SourceRanges:
    """The ranges of one Service, parsed."""

    networks: tuple[Network, ...]
    unparsable: tuple[str, ...]

    @classmethod
    def parse(cls, ranges: Iterable[str]) -> SourceRanges:
        parsed = {text: parse_network(text) for text in ranges}
        return cls(
            tuple(network for network in parsed.values() if network is not None),
            tuple(text for text, network in parsed.items() if network is None),
        )

    def allowed_at(self, vip: str, node_addresses: Iterable[str]) -> tuple[str, ...] | None:
        """CIDRs that may connect to a VIP; None: everybody.

        As in kube-proxy each family is on its own: a /0, or no range of that family at all, lets
        all of it in, so that a list of IPv4 ranges leaves IPv6 open. Where a node address is
        allowed, so is the VIP, because that is the source of what the node sends to it.

        A list without any valid entry lets nobody in: somebody wanted a limit.
        """
        if not self.networks:
            return () if self.unparsable else None
        family = family_of(vip)
        own = [network for network in self.networks if f"IPv{network.version}" == family]
        if not own or any(network.prefixlen == 0 for network in own):
            return None
        allowed = [str(network) for network in own]
        if any(_within(address, own) for address in node_addresses):
            allowed.append(f"{vip}/{32 if family == 'IPv4' else 128}")
        return tuple(dict.fromkeys(allowed))


def _within(address: str, networks: list[Network]) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in networks)
