"""spec.loadBalancerSourceRanges: which clients may connect to a load-balancer IP."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from uproxy.core.ip import Family, Network, family_of, parse_network
from uproxy.core.networks import Networks

_LENGTH: Final[dict[Family, int]] = {"IPv4": 32, "IPv6": 128}
_OF_NODE: Final = {"0.0.0.0": "127.0.0.0/8", "::": "::1/128"}


@dataclass(frozen=True, slots=True)
class SourceRanges:
    """The ranges of one Service, parsed."""

    networks: tuple[Network, ...]
    unparsable: tuple[str, ...]
    """Entries that are not CIDRs."""

    @classmethod
    def parse(cls, ranges: Iterable[str]) -> SourceRanges:
        """Parse the field. Spaces around an entry are allowed, as in kube-proxy."""
        parsed = {text: parse_network(text) for text in ranges}
        return cls(
            tuple(network for network in parsed.values() if network is not None),
            tuple(text for text, network in parsed.items() if network is None),
        )

    def allowed_at(
        self,
        address: str,
        node_addresses: Iterable[str],
        *,
        interface_addresses: Iterable[str] = (),
        strict: bool = False,
    ) -> tuple[str, ...] | None:
        """The CIDRs that may connect to an address, usually a load-balancer IP. None: every client.

        As in kube-proxy each family is on its own. A /0 lets in all of its family, and so does a
        list without a range of that family: IPv4 ranges leave IPv6 open. `strict` closes it.

        If an address of this node is allowed, so is every source address that this node may have
        when it connects to itself: the load-balancer IP, any address of its interfaces (for IPv6
        the kernel picks the one most similar to the destination), and for a wildcard frontend the
        loopback addresses. kube-proxy allows the load-balancer IP for the same reason.

        A list without a valid entry lets no client in, since its author wanted a limit.
        """
        if not self.networks:
            return () if self.unparsable else None
        family = family_of(address)
        own = [network for network in self.networks if f"IPv{network.version}" == family]
        if any(network.prefixlen == 0 for network in own) or not (own or strict):
            return None
        allowed = [str(network) for network in own]
        networks = Networks(own)
        if any(each in networks for each in node_addresses):
            allowed.append(_OF_NODE.get(address) or f"{address}/{_LENGTH[family]}")
            allowed += _each_alone(frozenset(interface_addresses), family)
        return tuple(dict.fromkeys(allowed))


@lru_cache(maxsize=8)
def _each_alone(addresses: frozenset[str], family: Family) -> tuple[str, ...]:
    """Networks of one address each. There may be thousands, the same for every Service."""
    return tuple(
        f"{each}/{_LENGTH[family]}" for each in sorted(addresses) if family_of(each) == family
    )
