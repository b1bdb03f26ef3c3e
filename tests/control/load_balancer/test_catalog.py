"""Pools and advertisements that are in effect, whatever the objects say."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from tests.control.load_balancer.test_objects import METALLB_MODE, advertisement, namespace, pool
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.control.load_balancer.catalog import Catalog
from uproxy.control.load_balancer.objects import (
    ADVERTISEMENTS,
    NAMESPACES,
    POOLS,
    LoadBalancerObjects,
    wanted,
)
from uproxy.core.allocation.ip_address_pools import MAX_RANGES, IPAddressPool
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.announcing.advertisements import EVERYWHERE
from uproxy.core.announcing.l2_advertisements import L2Advertisement
from uproxy.core.cluster.objects import Namespace

KINDS: dict[str, Any] = {
    "IPAddressPool": (POOLS, IPAddressPool),
    "L2Advertisement": (ADVERTISEMENTS, L2Advertisement),
    "Namespace": (NAMESPACES, Namespace),
}
FLAG = Pool(name="flag", ranges=(AddressRange.parse("198.51.100.0/24"),))


class Cluster:
    """Objects, and the catalog that follows them."""

    def __init__(self, *flags: Pool) -> None:
        api = ApiClient(Access(origin="test", server="http://127.0.0.1:1"))
        self.objects = LoadBalancerObjects(api, wanted(METALLB_MODE, "kube-system"))
        self.catalog = Catalog(flags, self.objects)
        self.changes = 0
        self.catalog.observe(self._count)

    def apply(self, *objects: dict[str, Any]) -> None:
        for each in objects:
            source, kind = KINDS[each["kind"]]
            self.objects.apply(source, msgspec.convert(each, kind))

    def remove(self, obj: dict[str, Any]) -> None:
        source, kind = KINDS[obj["kind"]]
        self.objects.remove(source, kind, msgspec.convert(obj, kind).key)

    @property
    def pools(self) -> dict[str, list[str]]:
        """Of those that hand out addresses: their ranges."""
        found = self.catalog.pools
        return {each.name: [*map(str, each.ranges)] for each in found if not each.drained}

    @property
    def drained(self) -> dict[str, list[str]]:
        found = self.catalog.pools
        return {each.name: [*map(str, each.drained)] for each in found if each.drained}

    @property
    def errors(self) -> list[str]:
        return [f"{each.where}: {each.field}: {each.reason}" for each in self.catalog.errors]

    def _count(self) -> None:
        self.changes += 1


def test_pools_of_flags_alone() -> None:
    catalog = Catalog((FLAG,))
    assert catalog.pools == (FLAG,)
    assert catalog.advertisements == (EVERYWHERE,)
    assert (catalog.namespaces, catalog.complete, catalog.errors) == ({}, True, ())


def test_pools_of_the_configuration_file_may_change() -> None:
    cluster = Cluster(FLAG)
    before = cluster.catalog.pools
    cluster.catalog.set_flags([FLAG])
    assert (cluster.changes, cluster.catalog.pools) == (0, before)
    other = Pool(name="other", ranges=(AddressRange.parse("192.0.2.0/30"),))
    cluster.catalog.set_flags([FLAG, other])
    assert (cluster.changes, set(cluster.pools)) == (1, {"flag", "other"})
    assert cluster.catalog.flags == (FLAG, other)


def test_objects_and_flags() -> None:
    cluster = Cluster(FLAG)
    seen = [cluster.catalog.complete]
    for source in (POOLS, ADVERTISEMENTS, NAMESPACES):
        cluster.objects.replace(source, ())
    seen.append(cluster.catalog.complete)
    assert seen == [False, True]
    cluster.apply(pool("a"), advertisement("ad", ipAddressPools=["a"]), namespace("x", team="y"))
    assert cluster.pools == {
        "a": ["192.0.2.0-192.0.2.255"],
        "flag": ["198.51.100.0-198.51.100.255"],
    }
    named = [(each.name, set(each.pools)) for each in cluster.catalog.advertisements]
    assert named == [("ad", {"a"}), ("", {"flag"})]
    assert cluster.catalog.namespaces == {"x": {"team": "y"}}
    assert cluster.catalog.pools is cluster.catalog.pools
    before = cluster.changes
    cluster.remove(pool("a"))
    assert cluster.changes == before + 1
    assert set(cluster.pools) == {"flag"}


def test_without_pools_of_flags_nothing_is_announced_by_itself() -> None:
    cluster = Cluster()
    cluster.apply(pool("a"))
    assert cluster.catalog.advertisements == ()


def test_what_was_usable_before_stays_in_effect(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster()
    cluster.apply(pool("a", "192.0.2.0/28"), pool("b", "192.0.2.16/28"))
    cluster.apply(advertisement("ad"))
    assert cluster.errors == []
    cluster.apply(pool("a", "192.0.2.0/28", "192.0.2.3O"))
    weight = {"weight": 0, "preference": {}}
    cluster.apply(advertisement("ad", preferredNodeSelectors=[weight]))
    assert cluster.pools["a"] == ["192.0.2.0-192.0.2.15"]
    assert [each.name for each in cluster.catalog.advertisements] == ["ad"]
    assert cluster.errors == [
        'IPAddressPool metallb-system/a: spec.addresses[1]: "192.0.2.3O" is not a range; write '
        "FIRST-LAST or a CIDR",
        "L2Advertisement metallb-system/ad: spec.preferredNodeSelectors[0].weight: 0 is not from "
        "1 to 100",
    ]
    cluster.apply(pool("a", "192.0.2.0/27"))
    assert len(cluster.errors) == 2, "it overlaps b now, and one advertisement is still wrong"
    cluster.remove(pool("a"))
    assert set(cluster.pools) == {"b"}
    assert caplog.text.count("is not a range") == 1


def test_an_annotation_that_is_not_known_is_said_of_a_pool_that_is_in_effect() -> None:
    cluster = Cluster()
    made = pool("a", "192.0.2.0/28")
    made["metadata"]["annotations"] = {"uproxy.dev/drained": "true", "example.com/drained": "true"}
    cluster.apply(made)
    assert cluster.pools == {"a": ["192.0.2.0-192.0.2.15"]}
    assert cluster.errors == [
        "IPAddressPool metallb-system/a: metadata.annotations[uproxy.dev/drained]: is not known, "
        'so it is ignored; did you mean "uproxy.dev/drain"?'
    ]


def test_a_pool_that_was_never_usable_lets_services_keep_what_can_be_read() -> None:
    cluster = Cluster()
    wrong = pool("a", "192.0.2.0/28", "x", "192.0.2.8/29")
    wrong["metadata"]["labels"] = {"zone": "z"}
    cluster.apply(wrong, pool("b", "x"))
    assert cluster.pools == {}
    assert cluster.drained == {"a": ["192.0.2.0-192.0.2.15"]}
    [kept] = cluster.catalog.pools
    assert not kept.auto_assign
    assert kept.labels == (("zone", "z"),), "advertisements may select by them"
    assert len(cluster.errors) == 2


def test_of_pools_that_overlap_one_is_refused_and_services_keep_the_rest() -> None:
    cluster = Cluster(Pool(name="m", ranges=(AddressRange.parse("192.0.2.0/28"),)))
    cluster.apply(pool("z", "192.0.2.8/30", "192.0.2.64/28"))
    assert set(cluster.pools) == {"m"}
    assert cluster.drained == {"z": ["192.0.2.64-192.0.2.79"]}
    [error] = cluster.errors
    assert error.startswith("pool z: : 192.0.2.8-192.0.2.11 overlaps 192.0.2.0-192.0.2.15 of pool")


def test_of_a_range_that_overlaps_in_part_services_keep_the_other_part() -> None:
    cluster = Cluster()
    cluster.apply(pool("z", "192.0.2.0/24"))
    assert set(cluster.pools) == {"z"}
    cluster.apply(pool("a", "192.0.2.16/28"))
    assert set(cluster.pools) == {"a"}
    assert cluster.drained == {"z": ["192.0.2.0-192.0.2.15", "192.0.2.32-192.0.2.255"]}


def test_a_pool_with_too_many_ranges_does_not_hold_up_the_process() -> None:
    """To compare each of 60,000 with all others takes minutes, in which nothing is announced."""
    texts = [f"10.{n >> 13}.{n >> 5 & 255}.{(n & 31) * 8}" for n in range(60_000)]
    before = time.process_time()
    cluster = Cluster()
    cluster.apply(pool("b", *texts), pool("c", *texts[:9_000]), pool("a", *texts[:9_000]))
    assert set(cluster.pools) == {"a"}
    assert cluster.drained == {"b": texts[9_000:MAX_RANGES]}
    assert len(cluster.errors) == 3
    assert time.process_time() - before < 15


def test_a_pool_with_the_name_of_one_of_flags_is_refused() -> None:
    cluster = Cluster(FLAG)
    cluster.apply(pool("flag"))
    assert cluster.pools == {"flag": ["198.51.100.0-198.51.100.255"]}
    assert cluster.errors == ["pool flag: : another pool has this name"]
