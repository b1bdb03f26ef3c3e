"""On which interface a node announces an address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from uproxy.core.announcing.step import LocalInterface
from uproxy.core.ip import parse_network


class Chosen(NamedTuple):
    """The interface for an address, or why there is none."""

    interface: str = ""
    reason: str = ""


class Reach:
    """The interfaces of one node. What it finds out is kept, as it is asked again and again."""

    def __init__(self, interfaces: Mapping[str, LocalInterface]) -> None:
        self.interfaces = interfaces
        self._subnets = [
            (network, name)
            for name, each in interfaces.items()
            for text in each.subnets
            if (network := parse_network(text)) is not None
        ]
        # The longest prefix first, as in routing; then by name, so that the choice is the same
        # each time.
        self._subnets.sort(key=lambda each: (-each[0].prefixlen, each[1]))
        self._chosen: dict[tuple[str, tuple[str, ...]], Chosen] = {}

    @classmethod
    def of_lease(cls, interfaces: Mapping[str, tuple[str, ...]]) -> Reach:
        """That of another node, whose Lease names the interfaces with a carrier."""
        return cls({name: LocalInterface(subnets) for name, subnets in interfaces.items()})

    def choose(self, address: str, allowed: tuple[str, ...]) -> Chosen:
        """The interface on which to announce an address: with a carrier, and with a subnet that
        has the address. If only some are allowed, and none of these has such a subnet, the first
        of them that exists."""
        key = address, allowed
        if key not in self._chosen:
            self._chosen[key] = self._choose(address, allowed)
        return self._chosen[key]

    def _choose(self, address: str, allowed: tuple[str, ...]) -> Chosen:
        silent = ""
        for name in self._in_order(address, allowed):
            if self.interfaces[name].carrier:
                return Chosen(name)
            silent = silent or name
        if silent:
            return Chosen(reason=f"its interface {silent} has no carrier")
        if allowed:
            return Chosen(reason=f"it has none of the interfaces {', '.join(allowed)}")
        return Chosen(reason=f"none of its interfaces has a subnet with {address}")

    def _in_order(self, address: str, allowed: tuple[str, ...]) -> Iterator[str]:
        parsed = _parsed(address)
        for network, name in self._subnets:
            same = network.version == parsed.version
            if same and parsed in network and (not allowed or name in allowed):
                yield name
        yield from (name for name in allowed if name in self.interfaces)


@lru_cache(maxsize=8192)
def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(address)
