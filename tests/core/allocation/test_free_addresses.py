"""The first free address, compared with what walking over all of them finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from uproxy.core.allocation.free_addresses import FreeAddresses
from uproxy.core.allocation.ranges import AddressRange, RangeSet, place

parse = AddressRange.parse


def numbers(ranges: list[AddressRange]) -> list[int]:
    return [number for each in ranges for number in range(each.first, each.last + 1)]


@st.composite
def apart(draw: st.DrawFn) -> list[AddressRange]:
    """Ranges that do not overlap, in any order, around an address that ends in .0."""
    edges = draw(st.sets(st.integers(200, 320), min_size=2, max_size=12))
    ordered = sorted(edges)
    pairs = zip(ordered[::2], ordered[1::2], strict=False)
    base = place("192.0.2.0")[1]
    ranges = [AddressRange("IPv4", base + first, base + last) for first, last in pairs]
    return draw(st.permutations(ranges))


@given(ranges=apart(), steps=st.lists(st.integers(0, 400)), avoid_buggy=st.booleans())
def test_first(ranges: list[AddressRange], steps: list[int], avoid_buggy: bool) -> None:
    """Each step takes the first free address, or gives one back."""
    every = [
        number for number in numbers(ranges) if not avoid_buggy or number % 256 not in (0, 255)
    ]
    free = FreeAddresses(ranges, avoid_buggy=avoid_buggy)
    assert free.capacity == len(every)
    assert [place(each)[1] for each in free] == every
    used = set[int]()
    for step in steps:
        expected = next((number for number in every if number not in used), None)
        found = free.first(lambda address: place(address)[1] not in used)
        assert (None if found is None else place(found[1])[1]) == expected
        if found is not None:
            assert found[0] == every.index(place(found[1])[1]) or avoid_buggy
            assert free.position(place(found[1])[1]) == found[0]
        if step % 3 and expected is not None:
            used.add(expected)
        elif used:
            back = sorted(used)[step % len(used)]
            used.remove(back)
            free.give_back(back)


def test_what_has_not_been_looked_at_need_not_be_given_back() -> None:
    free = FreeAddresses([parse("192.0.2.0/30")])
    free.give_back(place("192.0.2.3")[1])
    free.give_back(place("192.0.2.77")[1])
    assert free.first(lambda _: True) == (0, "192.0.2.0")
    assert free.first(lambda address: address != "192.0.2.0") == (1, "192.0.2.1")


def test_of_no_range_nothing_is_free() -> None:
    free = FreeAddresses([])
    assert (free.capacity, free.first(lambda _: True), free.position(1)) == (0, None, None)
    free.give_back(1)
    assert free.first(lambda _: True) is None


RANGES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(
        lambda pair: AddressRange("IPv4", pair[0], pair[0] + pair[1])
    ),
    max_size=6,
)


@given(ranges=RANGES, whole=RANGES.filter(bool).map(lambda ranges: ranges[0]))
def test_range_sets(ranges: list[AddressRange], whole: AddressRange) -> None:
    found, every = RangeSet(ranges), set(numbers(ranges))
    assert numbers(found.ranges) == sorted(every)
    assert {number for number in range(100) if found.has("IPv4", number)} == every
    assert not any(found.has("IPv6", number) for number in range(100))
    inside, outside = list(found.inside(whole)), list(found.outside(whole))
    assert numbers(inside) == sorted(every & set(numbers([whole])))
    assert numbers(outside) == sorted(set(numbers([whole])) - every)
    assert not list(found.inside(whole._replace(family="IPv6")))
    assert list(found.outside(whole._replace(family="IPv6"))) == [whole._replace(family="IPv6")]
