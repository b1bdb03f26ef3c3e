"""The addresses of load balancers in /api/v1/routes."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.cli import views
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.load_balancer import (
    AddressCounts,
    AddressStatus,
    AnnouncingCounts,
    LoadBalancerStatus,
    PoolStatus,
    ServiceAddresses,
)
from uproxy.core.report.load_balancer_format import load_balancer_view
from uproxy.core.report.status_format import Filter, StatusView

A, B = ObjectName("default", "a"), ObjectName("other", "b")
STATUS = LoadBalancerStatus(
    mode="pools",
    announce="l2",
    allocating=True,
    allocator="node-1",
    pools=(
        PoolStatus(
            name="p",
            origin="flags",
            ranges=("192.0.2.10-192.0.2.19",),
            counts={"IPv4": AddressCounts(total=10, used=1, reserved=2, drained=3)},
        ),
    ),
    addresses=(
        AddressStatus(address="192.0.2.10", services=(B, A), pool="p", node="node-1", here=True),
        AddressStatus(address="192.0.2.11", services=(B,), pool="p"),
    ),
    services=(
        ServiceAddresses(service=B, addresses=("192.0.2.10", "192.0.2.11"), pool="p"),
        ServiceAddresses(service=A, reason="no pool has a free address"),
    ),
    counts=AnnouncingCounts(transitions=1),
)


def view(**wanted: str) -> dict[str, Any]:
    found = load_balancer_view(STATUS, Filter(**wanted).selects)
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return decoded


def test_names_are_texts_and_all_is_sorted() -> None:
    found = view()
    assert found["addresses"][0]["services"] == ["default/a", "other/b"]
    assert [each["service"] for each in found["services"]] == ["default/a", "other/b"]
    assert found["pools"][0]["counts"]["IPv4"] == {
        "total": 10,
        "used": 1,
        "reserved": 2,
        "drained": 3,
        "free": 4,
    }
    assert found["counts"]["transitions"] == 1


def test_a_filter_selects_services_and_their_addresses() -> None:
    found = view(namespace="default")
    assert [each["address"] for each in found["addresses"]] == ["192.0.2.10"]
    assert [each["service"] for each in found["services"]] == ["default/a"]
    assert found["pools"], "pools are always there"


def test_it_can_be_read_again_and_older_versions_do_not_have_it() -> None:
    made = views.status(load_balancer=load_balancer_view(STATUS, Filter().selects))
    body = msgspec.json.encode(made)
    assert msgspec.json.decode(body, type=StatusView).load_balancer == made.load_balancer
    older = {
        name: value for name, value in msgspec.json.decode(body).items() if name != "loadBalancer"
    }
    assert msgspec.convert(older, StatusView).load_balancer is None
