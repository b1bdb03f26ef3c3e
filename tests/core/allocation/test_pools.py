"""Ranges of addresses, and which pools can be used together."""

from __future__ import annotations

import re

import pytest

from uproxy.core.allocation.pools import Pool, overlap, pool_of, without_overlaps
from uproxy.core.allocation.ranges import AddressRange

parse = AddressRange.parse


def pool(name: str, *ranges: str) -> Pool:
    return Pool(name=name, ranges=tuple(map(parse, ranges)))


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", "192.0.2.1", id="address"),
        pytest.param(" 192.0.2.1 - 192.0.2.9 ", "192.0.2.1", "192.0.2.9", id="range"),
        pytest.param("192.0.2.77/30", "192.0.2.76", "192.0.2.79", id="prefix"),
        pytest.param("2001:DB8::/126", "2001:db8::", "2001:db8::3", id="ipv6-prefix"),
        pytest.param("fd00::1-fd00::1:0", "fd00::1", "fd00::1:0", id="ipv6-range"),
    ],
)
def test_set_different_address_pools_ranges_modes(text: str, first: str, last: str) -> None:
    found = parse(text)
    assert (found.address(found.first), found.address(found.last)) == (first, last)
    assert first in found
    assert last in found
    assert parse(str(found)) == found


@pytest.mark.parametrize("text", ["", "-", "192.0.2.1-", "192.0.2.0/33", "fe80::1%eth0", "web"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f'"{text}" is not a range; write FIRST-LAST')):
        parse(text)


def test_overlap() -> None:
    ranges = [("a", parse("192.0.2.0/28")), ("b", parse("192.0.2.16/28"))]
    assert overlap(ranges) is None
    inside = ("c", parse("192.0.2.3"))
    assert overlap([*ranges, inside]) == (ranges[0], inside)
    assert overlap([("a", parse("10.0.0.0/8")), ("b", parse("fd00::/8"))]) is None


def test_pool_of() -> None:
    pools = (pool("a", "192.0.2.0/28"), pool("b", "192.0.2.16/28", "fd00::/120"))
    assert pool_of("192.0.2.16", pools) == pools[1]
    assert pool_of("fd00::ff", pools) == pools[1]
    assert pool_of("fd00::1ff", pools) is None


def test_of_two_pools_that_overlap_the_last_by_name_is_refused() -> None:
    first, second, third = pool("a", "192.0.2.0/28"), pool("b", "192.0.2.8"), pool("c", "10.0.0.1")
    kept, refused = without_overlaps([third, second, first])
    assert kept == (first, third)
    reason = '192.0.2.8 overlaps 192.0.2.0-192.0.2.15 of pool "a"; leave one out'
    assert refused == ((second, reason),)


def test_what_a_refused_pool_has_is_free_for_others() -> None:
    first = pool("a", "192.0.2.0/28")
    second, third = pool("b", "10.0.0.1", "192.0.2.8"), pool("c", "10.0.0.0/30")
    kept, refused = without_overlaps([first, second, third])
    assert kept == (first, third)
    assert [each for each, _ in refused] == [second]


def test_of_two_pools_with_one_name_the_later_is_refused() -> None:
    first, second = pool("a", "192.0.2.0/28"), pool("a", "10.0.0.1")
    kept, refused = without_overlaps([first, second])
    assert (kept, refused) == ((first,), ((second, "another pool has this name"),))
