"""At which addresses NodePorts are served, from the entries of --nodeport-addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from uproxy.core.ip import FAMILIES, Family, Network, family_of, parse_ip, parse_network

ANY: Final[dict[Family, str]] = {"IPv4": "0.0.0.0", "IPv6": "::"}
"""The address that stands for every address of a family."""
_LOCALHOST: Final[dict[Family, str]] = {"IPv4": "127.0.0.1", "IPv6": "::1"}
_KEYWORDS: Final = ("primary", "localhost", "all")


def resolve_nodeport_addresses(
    entries: Sequence[str], interface_addresses: Iterable[str], node_addresses: Iterable[str]
) -> tuple[str, ...]:
    """The addresses that the entries of --nodeport-addresses stand for, by kube-proxy 1.37's rules.

    An entry is a CIDR (the interface addresses within it), "primary" (the first address of each
    family in `node_addresses`), "localhost" or "all", in any mix. A keyword concerns both families,
    a CIDR its own. A family that no entry concerns, or that a /0 covers, has all its addresses:
    "0.0.0.0" or "::". A family whose entries match nothing has none, which is no error.

    Raises ValueError, with a message for the user, for any other entry.
    """
    networks = [_network(entry) for entry in entries if entry not in _KEYWORDS]
    keywords = {entry for entry in entries if entry in _KEYWORDS}
    interfaces = [each for each in map(parse_ip, interface_addresses) if each is not None]
    node = [each for each in map(parse_ip, node_addresses) if each is not None]
    found: list[str] = []
    for family in FAMILIES:
        own = [network for network in networks if f"IPv{network.version}" == family]
        if "all" in keywords or not (own or keywords) or any(n.prefixlen == 0 for n in own):
            found.append(ANY[family])
        else:
            found += _named(keywords, family, interfaces, node)
            found += _within(own, interfaces)
    return tuple(dict.fromkeys(found))


def _network(entry: str) -> Network:
    network = parse_network(entry)
    if network is not None:
        return network
    address = parse_ip(entry.strip())
    if address is not None:
        meant = f"did you mean {address}/{32 if family_of(address) == 'IPv4' else 128}?"
    else:
        meant = "expected a CIDR such as 192.0.2.0/24, or primary, localhost or all"
    raise ValueError(f'"{entry}" is not a network: {meant}')


def _named(
    keywords: set[str], family: Family, interfaces: list[str], node: list[str]
) -> Iterator[str]:
    if "primary" in keywords:
        yield from [each for each in node if family_of(each) == family][:1]
    # Without IPv6 in the kernel there is no ::1, and binding it would fail forever.
    if "localhost" in keywords and (family == "IPv4" or _LOCALHOST[family] in interfaces):
        yield _LOCALHOST[family]


def _within(networks: list[Network], interfaces: list[str]) -> list[str]:
    return [
        each
        for each in interfaces
        if any(ipaddress.ip_address(each) in network for network in networks)
    ]
