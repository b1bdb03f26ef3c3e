"""spec.loadBalancerSourceRanges: who may connect to a load-balancer VIP."""

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

    @classmethod
    def parse(cls, ranges: Iterable[str]) -> SourceRanges:
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
        """CIDRs that may connect to an address, as a rule a VIP; None: everybody.

        As in kube-proxy each family is on its own: a /0, or no range of that family at all, lets
        all of it in, so that a list of IPv4 ranges leaves IPv6 open; `strict` closes such a family.
        Where a node address is allowed, so is whatever source the node may have when it speaks to
        itself: the VIP, any address of its interfaces (IPv6 picks the one that is most like the
        VIP), and the loopback addresses at a wildcard.

        A list without any valid entry lets nobody in: somebody wanted a limit.
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
    """Networks of one address each. There may be thousands, for each Service the same."""
    return tuple(
        f"{each}/{_LENGTH[family]}" for each in sorted(addresses) if family_of(each) == family
    )
