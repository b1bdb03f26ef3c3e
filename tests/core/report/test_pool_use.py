"""How many addresses of a pool are used, kept back and free."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from uproxy.core.allocation.holdings import PoolUsage
from uproxy.core.allocation.pools import Pool, Reservation
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import Family
from uproxy.core.report.load_balancer import AddressCounts, ServiceAddresses
from uproxy.core.report.pool_use import pool_statuses

TEN = "192.0.2.10-192.0.2.19"


def pool(*ranges: str, reserved: tuple[str, ...] = (), **fields: Any) -> Pool:
    fields["drained"] = tuple(map(AddressRange.parse, fields.get("drained", ())))
    return Pool(
        name="p",
        ranges=tuple(map(AddressRange.parse, ranges)),
        reservations=tuple(Reservation(AddressRange.parse(each)) for each in reserved),
        **fields,
    )


def counts(given: Pool, *used: str) -> dict[str, AddressCounts]:
    holder = ServiceAddresses(service=ObjectName("default", "web"), addresses=used, pool="p")
    other = ServiceAddresses(
        service=ObjectName("default", "other"), addresses=("192.0.2.15",), pool="other"
    )
    [status] = pool_statuses([given], {}, [holder, other], origins={}, reasons={})
    return {str(family): each for family, each in status.counts.items()}


@pytest.mark.parametrize(
    ("given", "used", "expected"),
    [
        pytest.param(pool(TEN), (), (10, 0, 0, 0, 10), id="empty"),
        pytest.param(pool(TEN), ("192.0.2.10", "192.0.2.11"), (10, 2, 0, 0, 8), id="used"),
        pytest.param(
            pool(TEN, reserved=("192.0.2.10-192.0.2.12",)),
            ("192.0.2.10",),
            (10, 1, 2, 0, 7),
            id="reserved, one of them used",
        ),
        pytest.param(
            pool(TEN, drained=("192.0.2.18-192.0.2.30",)),
            ("192.0.2.18",),
            (10, 1, 0, 1, 8),
            id="drained, partly outside, one used",
        ),
        pytest.param(
            pool(TEN, reserved=("192.0.2.10-192.0.2.14",), drained=("192.0.2.12",)),
            (),
            (10, 0, 4, 1, 5),
            id="drained in the midst of what is reserved",
        ),
        pytest.param(
            pool(TEN, drained=("192.0.2.0/24", "192.0.2.12")),
            ("192.0.2.10",),
            (10, 1, 0, 9, 0),
            id="all is drained",
        ),
        pytest.param(
            pool("192.0.2.0/24", avoid_buggy_ips=True), (), (254, 0, 0, 0, 254), id="no .0, no .255"
        ),
        pytest.param(
            pool("192.0.2.1-192.0.2.254", avoid_buggy_ips=True),
            (),
            (254, 0, 0, 0, 254),
            id="none of these in it",
        ),
        pytest.param(
            pool("192.0.2.255-192.0.3.0", avoid_buggy_ips=True),
            (),
            (0, 0, 0, 0, 0),
            id="only these",
        ),
    ],
)
def test_counts(given: Pool, used: tuple[str, ...], expected: tuple[int, ...]) -> None:
    found = counts(given, *used)["IPv4"]
    assert (found.total, found.used, found.reserved, found.drained, found.free) == expected


def test_families_are_counted_apart() -> None:
    found = counts(pool(TEN, "2001:db8::/126"), "192.0.2.10", "2001:db8::1", "2001:db8::2")
    assert found == {
        "IPv4": AddressCounts(total=10, used=1),
        "IPv6": AddressCounts(total=4, used=2),
    }
    assert counts(pool("2001:db8::/126")).keys() == {"IPv6"}


def test_an_address_that_is_shared_counts_once() -> None:
    names = (ObjectName("default", "dns-tcp"), ObjectName("default", "dns-udp"))
    sharers = [ServiceAddresses(service=n, addresses=("192.0.2.10",), pool="p") for n in names]
    [status] = pool_statuses(
        [pool(TEN)],
        {},
        sharers,
        origins={"p": "IPAddressPool a/p"},
        reasons={"p": "not announced"},
    )
    assert status.counts["IPv4"].used == 1
    assert (status.origin, status.reason) == ("IPAddressPool a/p", "not announced")


def test_numbers_of_a_large_pool_are_numbers_in_json() -> None:
    found = counts(pool("2001:db8::/32"), "2001:db8::1")["IPv6"]
    assert found.free == 2**63 - 2
    assert msgspec.json.decode(msgspec.json.encode(found))["total"] == 2**63 - 1


def test_the_allocator_knows_of_addresses_that_nothing_may_have() -> None:
    given = pool(TEN, reserved=("192.0.2.10",), drained=("192.0.2.11",))
    usage: dict[Family, PoolUsage] = {"IPv4": PoolUsage(assigned=2, available=5)}
    [status] = pool_statuses([given], {"p": usage}, [], origins={}, reasons={})
    found = status.counts["IPv4"]
    assert (found.total, found.used, found.reserved, found.drained, found.free) == (10, 2, 2, 1, 5)


def test_a_pool_of_thousands_of_ranges_that_is_drained() -> None:
    """To compare each with each takes 10 s, for every request of the metrics."""
    addresses = [f"10.{n >> 7}.{n & 127}.1" for n in range(10_000)]
    given = pool(*addresses, drained=tuple(addresses))
    before = time.process_time()
    found = counts(given, *addresses[:1_000])["IPv4"]
    assert (found.total, found.used, found.drained) == (10_000, 1_000, 9_000)
    assert time.process_time() - before < 3
