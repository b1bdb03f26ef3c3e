"""Ranges of addresses, and which pools can be used together."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest

from uproxy.core.allocation.pool_table import PoolTable
from uproxy.core.allocation.pools import (
    Pool,
    PoolsByAddress,
    Reservation,
    overlap,
    without_overlaps,
)
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.objects import ObjectName

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
    pools = (pool("a", "192.0.2.0/28", "192.0.2.32"), pool("b", "fd00::/120", "192.0.2.16/28"))
    by_address = PoolsByAddress(pools)
    found = {
        each: by_address.pool_of(each)
        for each in ("192.0.2.0", "192.0.2.15", "192.0.2.16", "192.0.2.32", "fd00::", "fd00::ff")
    }
    assert [*found.values()] == [pools[0], pools[0], pools[1], pools[0], pools[1], pools[1]]
    for each in ("192.0.1.255", "192.0.2.33", "fc00::", "fd00::100", "::c000:210"):
        assert by_address.pool_of(each) is None


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


def test_thousands_of_ranges_each_for_one_service() -> None:
    """To look through all ranges for each Service takes 25 s."""
    ranges = [f"10.{n >> 7}.{n & 127}.1" for n in range(10_000)]
    names = [ObjectName("default", f"s{number}") for number in range(10_000)]
    given = replace(
        pool("a", *ranges),
        reservations=tuple(map(Reservation, map(parse, ranges), names)),
    )
    before = time.process_time()
    table = PoolTable([given])
    own = [table.by_name["a"].own_free(each, "IPv4") for each in names]
    assert [next(iter(each), "") for each in own if each] == ranges
    by_address = PoolsByAddress([given])
    assert {id(by_address.pool_of(each)) for each in ranges} == {id(given)}
    assert time.process_time() - before < 8
