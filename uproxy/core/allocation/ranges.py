"""Ranges of addresses, as pools are written: "192.0.2.10-192.0.2.20" or "2001:db8::/120"."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from uproxy.core.ip import Family, parse_ip, parse_network


class AddressRange(NamedTuple):
    """Addresses of one family that follow each other, first and last included, as numbers."""

    family: Family
    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """The range of "FIRST-LAST", "ADDRESS/LENGTH", or of a single address. All addresses of a
        network count, its first and last one included. Raises ValueError, which says what is
        wrong."""
        text = text.strip()
        network = parse_network(text)
        if network is not None:
            return cls(_family(network.version), int(network[0]), int(network[-1]))
        first, dash, last = (part.strip() for part in text.partition("-"))
        ends = [parse_ip(each) for each in ((first, last) if dash else (first,))]
        if None in ends:
            raise ValueError(f'"{text}" is not a range; write FIRST-LAST or a CIDR')
        numbers = [ipaddress.ip_address(each) for each in ends if each is not None]
        if numbers[0].version != numbers[-1].version:
            raise ValueError(f'"{text}" begins and ends in different IP families')
        if int(numbers[0]) > int(numbers[-1]):
            raise ValueError(f'"{text}" ends before it begins')
        return cls(_family(numbers[0].version), int(numbers[0]), int(numbers[-1]))

    def __contains__(self, address: object) -> bool:
        """Whether an address, given as text, is in the range."""
        parsed = ipaddress.ip_address(str(address))
        return _family(parsed.version) == self.family and self.first <= int(parsed) <= self.last

    def __str__(self) -> str:
        first, last = (self.address(number) for number in (self.first, self.last))
        return first if first == last else f"{first}-{last}"

    def address(self, number: int) -> str:
        """An address of this family, from its number."""
        kind = ipaddress.IPv4Address if self.family == "IPv4" else ipaddress.IPv6Address
        return str(kind(number))

    def overlaps(self, other: AddressRange) -> bool:
        return self.family == other.family and self.first <= other.last and other.first <= self.last


def _family(version: int) -> Family:
    return "IPv4" if version == 4 else "IPv6"
