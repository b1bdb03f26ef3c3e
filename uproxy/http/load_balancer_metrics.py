"""The metrics about addresses of load balancers: pools, Services, and what this node announces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from uproxy.core.printable import printable
from uproxy.core.report.load_balancer import (
    AddressCounts,
    AddressStatus,
    AnnouncingCounts,
    LoadBalancerStatus,
    PoolStatus,
    ServiceAddresses,
)
from uproxy.core.route import Announced

_PREFIX = "uproxy_load_balancer_"


def load_balancer_metrics(status: LoadBalancerStatus) -> Iterator[Metric]:
    """The families. Only those of pools have labels that grow, and clusters have few pools."""
    yield from _pools(status.pools)
    yield _services(status.services)
    yield GaugeMetricFamily(
        f"{_PREFIX}allocating",
        "Whether this process hands out the addresses (1), or another one does (0).",
        value=float(status.allocating),
    )
    yield GaugeMetricFamily(
        f"{_PREFIX}announced_addresses",
        "Addresses that this node announces now.",
        value=sum(each.here for each in status.addresses),
    )
    yield GaugeMetricFamily(
        f"{_PREFIX}unannounced_addresses",
        "Addresses of Services that one node has to announce by ARP or NDP, and that none does.",
        value=sum(_is_unannounced(each) for each in status.addresses)
        if status.announce == Announced.L2
        else 0,
    )
    yield GaugeMetricFamily(
        f"{_PREFIX}contradicted_addresses",
        "Addresses for which another machine was heard to answer as well.",
        value=sum(bool(each.conflict) for each in status.addresses),
    )
    yield from _counts(status.counts)


def _is_unannounced(address: AddressStatus) -> bool:
    return not address.node and not address.here


def _pools(pools: Iterable[PoolStatus]) -> Iterator[Metric]:
    labels = ["pool", "family"]
    total = GaugeMetricFamily(
        f"{_PREFIX}pool_addresses", "Addresses of a pool, by family.", labels=labels
    )
    used = GaugeMetricFamily(
        f"{_PREFIX}pool_addresses_in_use", "Addresses of a pool that Services have.", labels=labels
    )
    free = GaugeMetricFamily(
        f"{_PREFIX}pool_addresses_free",
        "Addresses of a pool that any Service may get: neither in use, nor reserved, nor drained.",
        labels=labels,
    )
    for pool in pools:
        for family, counts in pool.counts.items():
            _add(pool.name, family, counts, total, used, free)
    yield from (total, used, free)


def _add(
    pool: str,
    family: str,
    counts: AddressCounts,
    total: GaugeMetricFamily,
    used: GaugeMetricFamily,
    free: GaugeMetricFamily,
) -> None:
    labels = [printable(pool), family]
    total.add_metric(labels, counts.total)
    used.add_metric(labels, counts.used)
    free.add_metric(labels, counts.free)


def _services(services: Iterable[ServiceAddresses]) -> Metric:
    family = GaugeMetricFamily(
        f"{_PREFIX}services",
        "Services of type LoadBalancer: with an address, without one, and with a status that "
        "another controller has written.",
        labels=["state"],
    )
    states = dict.fromkeys(("assigned", "pending", "foreign"), 0)
    for each in services:
        states["foreign" if each.foreign else "assigned" if each.addresses else "pending"] += 1
    for state, number in states.items():
        family.add_metric([state], number)
    return family


def _counts(counts: AnnouncingCounts) -> Iterator[Metric]:
    for name, help_text, value in (
        (
            "transitions",
            "How often this node has begun or ceased to announce an address.",
            counts.transitions,
        ),
        (
            "announcements",
            "Gratuitous ARP frames and unsolicited neighbour advertisements that were sent.",
            counts.gratuitous,
        ),
        (
            "contradictions",
            "How often another machine was heard to have an address that this node announces.",
            counts.contradictions,
        ),
        (
            "lease_renewal_failures",
            "Writes of this node's Lease that have failed.",
            counts.failed_renewals,
        ),
    ):
        yield CounterMetricFamily(f"{_PREFIX}{name}_total", help_text, value=value)
