"""Pools and reservations, as people write them."""

from __future__ import annotations

import re

import pytest

from uproxy.core.allocation.pool_syntax import (
    PoolRanges,
    format_reservation,
    parse_pool,
    parse_ranges,
    parse_reservations,
)
from uproxy.core.allocation.pools import Reservation
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.objects import ObjectName

parse = AddressRange.parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("192.0.2.1", PoolRanges("default", (parse("192.0.2.1"),)), id="address"),
        pytest.param(
            " 192.0.2.1 - 192.0.2.9 , 2001:db8::/120,",
            PoolRanges("default", (parse("192.0.2.1-192.0.2.9"), parse("2001:db8::/120"))),
            id="ranges",
        ),
        pytest.param(
            "web-1.x = 192.0.2.0/24", PoolRanges("web-1.x", (parse("192.0.2.0/24"),)), id="name"
        ),
    ],
)
def test_pool(text: str, expected: PoolRanges) -> None:
    assert parse_pool(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", '"" has no addresses; give for example', id="empty"),
        pytest.param("a=", '"a=" has no addresses', id="name-only"),
        pytest.param("A=192.0.2.1", '"A" is not the name of a pool; give lower-case', id="name"),
        pytest.param("=192.0.2.1", '"" is not the name of a pool', id="empty-name"),
        pytest.param(
            "a=192.0.2.1,b=192.0.2.9",
            '"a=192.0.2.1,b=192.0.2.9" has two names; give each pool by itself',
            id="two-pools",
        ),
        pytest.param("192.0.2", '"192.0.2" is not a range; write FIRST-LAST', id="range"),
        pytest.param(
            "0.0.0.0/8", '"0.0.0.0/8" contains the unspecified address; give a range', id="zero"
        ),
        pytest.param(
            "192.0.2.1,224.0.0.1", '"224.0.0.1" contains multicast addresses', id="multicast"
        ),
    ],
)
def test_what_is_no_pool(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_pool(text)


def test_reservations() -> None:
    text = "192.0.2.1, 192.0.2.8/31=default/web,2001:db8::1=a/b"
    found = parse_reservations(text)
    assert found == (
        Reservation(parse("192.0.2.1")),
        Reservation(parse("192.0.2.8/31"), ObjectName("default", "web")),
        Reservation(parse("2001:db8::1"), ObjectName("a", "b")),
    )
    assert parse_reservations(",".join(map(format_reservation, found))) == found


@pytest.mark.parametrize("text", ["192.0.2.1=web", "192.0.2.1=", "192.0.2.1=a/b/c", "192.0.2.1=a/"])
def test_what_is_no_reservation(text: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a Service; write NAMESPACE/NAME"):
        parse_reservations(text)


def test_ranges() -> None:
    assert parse_ranges("") == ()
    assert parse_ranges("192.0.2.1,192.0.2.4/31") == (parse("192.0.2.1"), parse("192.0.2.4/31"))
