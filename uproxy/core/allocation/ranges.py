"""Ranges of addresses, as pools are written: "192.0.2.10-192.0.2.20" or "2001:db8::/120"."""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from uproxy.core.brief import brief
from uproxy.core.ip import Family, parse_ip, parse_network
from uproxy.core.printable import printable

_LONGEST: Final = 100
"""Characters of the longest text that may be a range. Two IPv6 addresses have 79."""


class AddressRange(NamedTuple):
    """Addresses of one family that follow each other, first and last included, as numbers."""

    family: Family
    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """The range of "FIRST-LAST", "ADDRESS/LENGTH", or of a single address. All addresses of a
        network count, its first and last one included. Raises ValueError, which says what is
        wrong and what to do."""
        found = cls._read(text.strip()) if len(text) <= _LONGEST else None
        if found is None:
            raise ValueError(f"{quoted(text)} is not a range; write FIRST-LAST or a CIDR")
        for each, kind in _NOT_FOR_SERVICES:
            if found.overlaps(each):
                raise ValueError(f"{quoted(text)} contains {kind}; give a range without {each}")
        return found

    @classmethod
    def _read(cls, text: str) -> AddressRange | None:
        network = parse_network(text)
        if network is not None:
            return cls(_family(network.version), int(network[0]), int(network[-1]))
        first, dash, last = (part.strip() for part in text.partition("-"))
        ends = [parse_ip(each) for each in ((first, last) if dash else (first,))]
        numbers = [ipaddress.ip_address(each) for each in ends if each is not None]
        if len(numbers) < len(ends):
            return None
        if numbers[0].version != numbers[-1].version:
            raise ValueError(f'"{text}" has two IP families; give both ends in the same one')
        if int(numbers[0]) > int(numbers[-1]):
            raise ValueError(f'"{text}" ends before it begins; give {last}-{first}')
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
        if self.family == "IPv6":
            return str(ipaddress.IPv6Address(number))
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    def overlaps(self, other: AddressRange) -> bool:
        return self.family == other.family and self.first <= other.last and other.first <= self.last

    def common(self, other: AddressRange) -> AddressRange | None:
        """The addresses that both have; None if there are none."""
        if not self.overlaps(other):
            return None
        first, last = max(self.first, other.first), min(self.last, other.last)
        return AddressRange(self.family, first, last)


class RangeSet:
    """The addresses of many ranges, which may overlap. Looked up by bisection."""

    def __init__(self, ranges: Iterable[AddressRange]) -> None:
        joined = list[AddressRange]()
        for each in sorted(ranges):
            if joined and joined[-1].overlaps(each):
                last = max(joined[-1].last, each.last)
                joined[-1] = joined[-1]._replace(last=last)
            else:
                joined.append(each)
        self.ranges = joined
        """The same addresses, in order, without overlaps."""
        self._firsts = [(each.family, each.first) for each in joined]
        self._lasts = [(each.family, each.last) for each in joined]

    def has(self, family: Family, number: int) -> bool:
        """Whether an address, given as a number, is in one of the ranges."""
        index = bisect_right(self._firsts, (family, number)) - 1
        return index >= 0 and self._lasts[index] >= (family, number)

    def outside(self, whole: AddressRange) -> Iterator[AddressRange]:
        """The parts of a range that are in none of these."""
        first = whole.first
        index = bisect_left(self._lasts, (whole.family, first))
        for at in range(index, len(self.ranges)):
            each = self.ranges[at]
            if not each.overlaps(whole):
                break
            if first < each.first:
                yield AddressRange(whole.family, first, each.first - 1)
            first = each.last + 1
        if first <= whole.last:
            yield AddressRange(whole.family, first, whole.last)

    def inside(self, whole: AddressRange) -> Iterator[AddressRange]:
        """The parts of a range that are in these."""
        for at in range(bisect_left(self._lasts, (whole.family, whole.first)), len(self.ranges)):
            common = self.ranges[at].common(whole)
            if common is None:
                break
            yield common


def place(address: str) -> tuple[Family, int]:
    """The family and the number of an address in canonical form."""
    if ":" in address:
        return "IPv6", int(ipaddress.IPv6Address(address))
    # This takes 0.4 us; ipaddress takes 1.5 us. Each Service needs it several times.
    first, second, third, last = address.split(".")
    return "IPv4", int(first) << 24 | int(second) << 16 | int(third) << 8 | int(last)


def quoted(text: str) -> str:
    """A text from outside as errors quote it, however long and odd it is."""
    return f'"{brief(printable(text[: 2 * _LONGEST]), _LONGEST)}"'


def _family(version: int) -> Family:
    return "IPv4" if version == 4 else "IPv6"


def _network(text: str) -> AddressRange:
    network = ipaddress.ip_network(text)
    return AddressRange(_family(network.version), int(network[0]), int(network[-1]))


_NOT_FOR_SERVICES: Final = tuple(
    (_network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "the unspecified address"),
        ("224.0.0.0/4", "multicast addresses"),
        ("255.255.255.255/32", "the broadcast address"),
        ("169.254.0.0/16", "link-local addresses"),
        ("::/128", "the unspecified address"),
        ("::ffff:0:0/96", "IPv4 addresses in the form of IPv6"),
        ("fe80::/10", "link-local addresses"),
        ("ff00::/8", "multicast addresses"),
    )
)
"""Addresses at which no Service can be reached, and what they are. Link-local ones
are not served (see routing/reserved.py); those of IPv6 would need a zone, which a status cannot
have."""
