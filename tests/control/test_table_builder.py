"""The routing table is made a few Services at a time, so that the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from unittest.mock import patch

import pytest

from tests.builders import SOURCE, cluster, node, service
from tests.control.test_service_addresses import FakeClaims
from uproxy.control.service_addresses import ServiceAddresses
from uproxy.control.table_builder import TableBuilder
from uproxy.core.backoff import Backoff
from uproxy.core.routing.derive import derive
from uproxy.core.routing.options import RoutingOptions
from uproxy.host.claims import Claims

_MANY = 1000
RANGES = ("192.0.2.0/24",)


def builder(**options: Any) -> TableBuilder:
    services = [
        service(
            f"s{index}",
            ip=f"10.96.{index >> 8}.{index & 255}",
            load_balancer_source_ranges=RANGES if index % 2 else (),
        )
        for index in range(_MANY)
    ]
    state = cluster(*services, node(zone="a"))
    service_addresses = ServiceAddresses(cast("Claims", FakeClaims()))
    return TableBuilder(
        state, service_addresses, RoutingOptions(**options), Backoff(initial=1, maximum=1)
    )


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param({"local_addresses": frozenset({"192.0.2.1"})}, _MANY // 2, id="an address"),
        pytest.param({"strict_source_ranges": True}, _MANY, id="a setting"),
    ],
)
async def test_a_change_of_this_machine_leaves_the_loop_its_turns(
    after: dict[str, Any], expected: int
) -> None:
    made = builder()
    await made.update(RoutingOptions())
    derived: list[int] = [0]

    def counting(*args: Any) -> Any:
        derived[-1] += 1
        return derive(*args)

    async def turns() -> None:
        while True:
            derived.append(0)
            await asyncio.sleep(0)

    with patch("uproxy.core.routing.build.derive", counting):
        async with asyncio.TaskGroup() as tasks:
            ticking = tasks.create_task(turns())
            await made.update(RoutingOptions(**after))
            ticking.cancel()
    assert sum(derived) == expected
    assert max(derived) <= 64
    assert made.table.options == RoutingOptions(**after)


async def test_claims_that_become_possible_are_noticed() -> None:
    claims = FakeClaims()
    claims.reason = "another uproxy claims the addresses of this node"
    state = cluster(service("a", ip="10.96.0.1"), service("b", ip="10.96.0.2"))
    service_addresses = ServiceAddresses(cast("Claims", claims))
    made = TableBuilder(state, service_addresses, RoutingOptions(), Backoff(initial=1, maximum=1))
    await made.update(RoutingOptions())
    assert service_addresses.needed == {}
    claims.reason = ""
    made.look_at_all_addresses()
    pending = await made.update(RoutingOptions())
    assert {each.address for each in pending} == {"10.96.0.1", "10.96.0.2"}
    assert service_addresses.needed.keys() == {"10.96.0.1", "10.96.0.2"}


async def test_an_address_of_this_node_is_not_claimed() -> None:
    """Neither while no interface has it, nor if it is known late that it is one."""
    state = cluster(service("a", ip="10.96.0.1", ingress=["192.0.2.1"]))
    service_addresses = ServiceAddresses(cast("Claims", FakeClaims()))
    made = TableBuilder(state, service_addresses, RoutingOptions(), Backoff(initial=1, maximum=1))
    await made.update(RoutingOptions())
    assert service_addresses.needed.keys() == {"10.96.0.1", "192.0.2.1"}
    state.apply(SOURCE, node(addresses=["192.0.2.1"]))
    pending = await made.update(RoutingOptions())
    assert service_addresses.needed.keys() == {"10.96.0.1"}
    assert {each.address for each in pending} >= {"192.0.2.1"}
    assert {each.address for each in made.table.routes} == {"10.96.0.1", "192.0.2.1"}
