"""The first free address of some ranges, found without walking over those that are in use."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from uproxy.core.allocation.ranges import AddressRange

_BUGGY: Final = (0, 255)
"""Last octets of IPv4 addresses that the smurf protection of some routers drops."""


class _Part(NamedTuple):
    """A range, and how many addresses precede it in the order in which they are used up."""

    range: AddressRange
    before: int


class FreeAddresses:
    """Ranges of one family, from which addresses are taken in the order of the ranges.

    A cursor stands at the first address that has never been looked at; those before it that have
    been given back since are in a heap. So it costs the same however many are in use: a walk from
    the beginning each time takes 2 s for the last 100 addresses of a /16.
    """

    def __init__(self, ranges: Iterable[AddressRange], *, avoid_buggy: bool = False) -> None:
        self._avoid_buggy = avoid_buggy
        self._parts: list[_Part] = []
        before = 0
        for each in ranges:
            self._parts.append(_Part(each, before))
            before += each.last - each.first + 1
        self.capacity = sum(map(self._usable, (each for each, _ in self._parts)))
        """How many addresses there are, in use or not."""
        self._by_number = sorted(self._parts)
        self._firsts = [part.range.first for part in self._by_number]
        self._part, self._cursor = 0, self._parts[0].range.first if self._parts else 0
        self._returned: list[tuple[int, int]] = []
        """A heap of positions and numbers."""
        self._is_returned: set[int] = set()
        """The positions in the heap."""

    def position(self, number: int) -> int | None:
        """How many addresses come before one; None if it is not among them."""
        index = bisect_right(self._firsts, number) - 1
        if index < 0 or self._skips(number):
            return None
        part, before = self._by_number[index]
        return before + number - part.first if number <= part.last else None

    def __iter__(self) -> Iterator[str]:
        """All addresses. There may be very many."""
        for part, _ in self._parts:
            for number in range(part.first, part.last + 1):
                if not self._skips(number):
                    yield part.address(number)

    def first(self, is_free: Callable[[str], bool]) -> tuple[int, str] | None:
        """The position of the first free address, and the address; None if none is free. Those
        that are not free are not asked about again until they are given back."""
        return self._first_returned(is_free) or self._first_new(is_free)

    def give_back(self, number: int) -> None:
        """Note that an address may have become free."""
        position = self.position(number)
        if position is None or position in self._is_returned or not self._passed(position):
            return
        self._is_returned.add(position)
        heapq.heappush(self._returned, (position, number))

    def _first_returned(self, is_free: Callable[[str], bool]) -> tuple[int, str] | None:
        while self._returned:
            position, number = self._returned[0]
            address = self._parts[0].range.address(number)
            if is_free(address):
                return position, address
            heapq.heappop(self._returned)
            self._is_returned.discard(position)
        return None

    def _first_new(self, is_free: Callable[[str], bool]) -> tuple[int, str] | None:
        while self._part < len(self._parts):
            part, before = self._parts[self._part]
            while self._cursor <= part.last:
                if not self._skips(self._cursor):
                    address = part.address(self._cursor)
                    if is_free(address):
                        return before + self._cursor - part.first, address
                self._cursor += 1
            self._part += 1
            if self._part < len(self._parts):
                self._cursor = self._parts[self._part].range.first
        return None

    def _passed(self, position: int) -> bool:
        if self._part == len(self._parts):
            return True
        part, before = self._parts[self._part]
        return position < before + self._cursor - part.first

    def _usable(self, part: AddressRange) -> int:
        total = part.last - part.first + 1
        return total - sum(_ending_in(octet, part) for octet in _BUGGY) * self._avoid_buggy

    def _skips(self, number: int) -> bool:
        return self._avoid_buggy and is_buggy(number)


def is_buggy(number: int) -> bool:
    """Whether an IPv4 address ends in .0 or .255."""
    return number % 256 in _BUGGY


def _ending_in(octet: int, part: AddressRange) -> int:
    return (part.last - octet) // 256 - (part.first - 1 - octet) // 256
