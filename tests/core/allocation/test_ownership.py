"""Whose a status is: what is adopted, what is cleared, and what is never touched."""

from __future__ import annotations

import msgspec
import pytest

from tests.builders import port
from tests.core.allocation.world import World, balancer, changed, pool, sharing, written
from uproxy.core.allocation.allocator import Allocator
from uproxy.core.cluster.load_balancer import ASSIGNED, assigned_addresses
from uproxy.core.cluster.objects import LoadBalancerIngress, ObjectName, Service

POOL = pool("a", "192.0.2.0/29")
WEB = ObjectName("default", "web")
OTHER = (
    "its status has {}, which is none of uproxy's addresses; another controller is likely to serve "
    "this Service"
)


def allocator(*services: Service) -> Allocator:
    found = Allocator()
    found.set_pools([POOL])
    for each in services:
        found.put(each)
    return found


def recorded(*addresses: str) -> dict[str, str]:
    return {ASSIGNED: ",".join(addresses)}


def test_what_metallb_has_assigned_is_taken_over_without_a_change() -> None:
    service = balancer("web", ingress=["192.0.2.5"])
    [decision] = allocator(service).converge(complete=True)
    assert (decision.addresses, decision.pool, decision.events) == (("192.0.2.5",), "a", ())
    assert decision.condition is not None
    assert decision.condition.status == "True"


@pytest.mark.parametrize(
    ("service", "shown"),
    [
        pytest.param(balancer("web", ingress=["203.0.113.1"]), "203.0.113.1", id="address"),
        pytest.param(
            balancer("web", ingress=["192.0.2.1", "203.0.113.1"]), "203.0.113.1", id="one-of-two"
        ),
        pytest.param(
            balancer("web", ingress=["203.0.113.1"], annotations=recorded("192.0.2.1")),
            "203.0.113.1",
            id="overwritten",
        ),
        pytest.param(
            balancer("web", ingress=[LoadBalancerIngress(hostname="lb.example.com")]),
            '"lb.example.com"',
            id="host-name",
        ),
        pytest.param(
            balancer("web", ingress=["192.0.2.1", "lb-7"]), '"lb-7"', id="what-is-no-address"
        ),
        pytest.param(
            balancer(
                "web",
                ingress=["192.0.2.1", LoadBalancerIngress(hostname="lb.example.com")],
                annotations=recorded("192.0.2.1"),
            ),
            '"lb.example.com"',
            id="host-name-beside-ours",
        ),
    ],
)
def test_what_another_controller_has_written_is_left_alone(service: Service, shown: str) -> None:
    world = World(POOL)
    world.put(service)
    [decision] = world.decided
    assert (decision.foreign, decision.condition, decision.events) == (
        OTHER.format(shown),
        None,
        (),
    )
    assert world["web"] == service
    # Its pools may go, too.
    world.set_pools()
    assert world["web"] == service


def test_what_is_ours_and_in_no_pool_any_more_is_assigned_again() -> None:
    service = balancer("web", ingress=["203.0.113.1"], annotations=recorded("203.0.113.1"))
    world = World(POOL)
    world.put(service)
    assert world.ips("web") == ("192.0.2.0",)
    assert world.told("web") == [
        'Normal ClearAssignment: current IP for "default/web" not allowed by config, will attempt '
        'for new IP assignment: "203.0.113.1" is not allowed in config: no pool has it',
        'Normal IPAllocated: Assigned IP ["192.0.2.0"]',
    ]


def test_what_a_service_of_another_kind_has_of_others_is_left_alone() -> None:
    foreign = balancer("web", type="ClusterIP", ingress=["203.0.113.1"])
    mixed = changed(foreign, annotations=recorded("192.0.2.1"))
    world = World(POOL)
    for each in (foreign, mixed):
        world.put(each)
        assert (world["web"], world.decided) == (each, [])


def test_who_loses_a_status_gets_the_same_address_again() -> None:
    world = World(POOL)
    world.put(*(balancer(name) for name in ("a", "b", "c")))
    bare = balancer("c", annotations=world["c"].metadata.annotations)
    world.delete("a")
    world.put(bare)
    assert world.ips("c") == ("192.0.2.2",)


def test_before_all_is_known_nothing_is_cleared_or_handed_out() -> None:
    found = Allocator()
    held = balancer("web", ingress=["192.0.2.5"])
    for each in (held, balancer("new"), balancer("foreign", ingress=["203.0.113.1"])):
        found.put(each)
    assert found.converge(complete=False) == []
    found.set_pools([POOL])
    [decision] = found.converge(complete=False)
    assert (decision.service, decision.addresses) == (WEB, ("192.0.2.5",))
    decisions = {each.service.name: each for each in found.converge(complete=True)}
    assert decisions["new"].addresses == ("192.0.2.0",)
    assert decisions["foreign"].foreign == OTHER.format("203.0.113.1")
    assert decisions["web"].addresses == ("192.0.2.5",)


def test_what_another_process_has_taken_away_is_not_adopted_any_more() -> None:
    found = allocator(balancer("web", ingress=["192.0.2.5"]))
    assert len(found.converge(complete=False)) == 1
    found.put(balancer("web"))
    assert found.converge(complete=False) == []
    assert found.decisions == {}


def test_every_status_is_adopted_before_anything_is_assigned() -> None:
    older = balancer("older")
    younger = balancer("younger", ingress=["192.0.2.0"], created="2026-02-01T00:00:00Z")
    found = {
        each.service.name: each.addresses
        for each in allocator(older, younger).converge(complete=True)
    }
    assert found == {"older": ("192.0.2.1",), "younger": ("192.0.2.0",)}


def test_of_two_that_have_one_address_at_a_start_the_older_keeps_it() -> None:
    world = World(POOL)
    world.services = {
        each.key: each
        for each in (
            balancer("a", ingress=["192.0.2.0"], created="2026-02-01T00:00:00Z"),
            balancer("b", ingress=["192.0.2.0"]),
        )
    }
    world.restart()
    assert world.held() == {"a": ("192.0.2.1",), "b": ("192.0.2.0",)}


def test_of_two_that_have_one_address_later_the_one_that_had_it_keeps_it() -> None:
    world = World(POOL)
    world.put(balancer("a", created="2026-02-01T00:00:00Z"))
    world.put(balancer("b", ingress=["192.0.2.0"]))
    assert world.held() == {"a": ("192.0.2.0",), "b": ("192.0.2.1",)}


class TestUnwritten:
    """A decision whose status has not come back yet."""

    def test_stands_while_the_service_changes(self) -> None:
        service = balancer("web")
        found = allocator(service)
        [first] = found.converge(complete=True)
        found.put(balancer("other", created="2025-01-01T00:00:00Z"))
        found.put(changed(service, labels={"a": "b"}))
        decisions = {each.service.name: each for each in found.converge(complete=True)}
        assert decisions["web"].addresses == first.addresses == ("192.0.2.0",)
        assert decisions["web"].events == ()
        assert decisions["other"].addresses == ("192.0.2.1",)

    def test_stands_while_pools_change(self) -> None:
        found = allocator(balancer("web"), balancer("web2"))
        found.converge(complete=True)
        found.set_pools([pool("b", "192.0.2.1-192.0.2.9"), pool("c", "192.0.2.0")])
        decisions = {each.service.name: each for each in found.converge(complete=True)}
        assert (decisions["web"].addresses, decisions["web"].pool) == (("192.0.2.0",), "c")
        assert decisions["web2"].addresses == ("192.0.2.1",)

    def test_gives_way_to_another_status(self) -> None:
        service = balancer("web")
        found = allocator(service)
        found.converge(complete=True)
        found.put(balancer("web", ingress=["192.0.2.3"]))
        [decision] = found.converge(complete=True)
        assert decision.addresses == ("192.0.2.3",)

    def test_gives_way_to_what_another_service_has(self) -> None:
        """As written by a process that has decided before this one."""
        found = allocator(balancer("web"))
        found.converge(complete=True)
        found.put(balancer("other", ingress=["192.0.2.0"], created="2026-02-01T00:00:00Z"))
        decisions = {each.service.name: each for each in found.converge(complete=True)}
        assert decisions["other"].addresses == ("192.0.2.0",)
        assert decisions["web"].addresses == ("192.0.2.1",)

    def test_is_forgotten_when_another_process_has_decided_meanwhile(self) -> None:
        found = allocator(balancer("web"))
        found.converge(complete=True)
        found.converge(complete=False)
        found.put(balancer("a"))
        decisions = {each.service.name: each for each in found.converge(complete=True)}
        assert decisions["a"].addresses == ("192.0.2.0",)
        assert decisions["web"].addresses == ("192.0.2.1",)

    def test_is_said_again_with_each_change_of_the_service(self) -> None:
        service = balancer("web")
        found = allocator(service)
        [first] = found.converge(complete=True)
        assert [each.reason for each in first.events] == ["IPAllocated"]
        assert found.converge(complete=True) == []
        found.put(service)
        assert found.converge(complete=True) == []
        found.put(changed(service, labels={"a": "b"}))
        [again] = found.converge(complete=True)
        assert (again.addresses, again.events) == (first.addresses, ())
        assert found.decisions == {WEB: again}

    def test_of_a_loss_is_taken_back_when_its_reason_goes(self) -> None:
        key = sharing("k")
        one = balancer("one", port(80), ingress=["192.0.2.0"], annotations=key)
        two = balancer("two", port(80), ingress=["192.0.2.0"], annotations=key)
        small = Allocator()
        small.set_pools([pool("a", "192.0.2.0")])
        for each in (one, two):
            small.put(each)
        lost = {each.service.name: each.addresses for each in small.converge(complete=True)}
        assert lost == {"one": ("192.0.2.0",), "two": ()}
        small.remove(one.key)
        [back] = small.converge(complete=True)
        assert (back.service.name, back.addresses) == ("two", ("192.0.2.0",))


def test_who_waits_is_not_told_again_after_a_restart() -> None:
    world = World(pool("a", "192.0.2.0"))
    world.put(balancer("a"))
    world.put(balancer("b"))
    assert [each.reason for _, each in world.events] == ["AllocationFailed"]
    world.restart()
    assert world.events == []
    world.put(balancer("c", created="2026-02-01T00:00:00Z"))
    assert [name for name, _ in world.events] == ["c"]


def test_who_removes_the_annotation_takes_no_address_away() -> None:
    """As `kubectl replace` does, and Terraform. The address is announced all the time."""
    world = World(POOL)
    world.put(balancer("web"))
    replaced = changed(world["web"], annotations=None)
    assert assigned_addresses(replaced) == ("192.0.2.0",)
    overwritten = balancer("web", ingress=["192.0.2.1"])
    [condition] = replaced.status.conditions or ()
    more = f'{condition.message}; port TCP/80 is already in use on "192.0.2.1" by default/x'
    conditions = (msgspec.structs.replace(condition, message=more),)
    status = msgspec.structs.replace(overwritten.status, conditions=conditions)
    assert assigned_addresses(msgspec.structs.replace(overwritten, status=status)) == ()
    world.put(replaced)
    assert (world["web"].metadata.annotations or {})[ASSIGNED] == "192.0.2.0"
    assert world.ips("web") == ("192.0.2.0",)


def test_marks_go_when_a_service_is_not_for_uproxy_any_more() -> None:
    world = World(pool("a", "192.0.2.0"))
    world.put(balancer("a"))
    world.put(balancer("b"))
    assert world["b"].status.conditions is not None
    for name in ("a", "b"):
        world.change(name, type="ClusterIP")
        assert world[name] == balancer(name, type="ClusterIP")
    assert world.allocator.decisions == {}


def test_marks_go_after_a_restart_too() -> None:
    world = World(POOL)
    world.put(balancer("web"))
    service = changed(world["web"], type="ClusterIP")
    found = allocator(service)
    [decision] = found.converge(complete=True)
    assert (decision.addresses, decision.condition) == ((), None)
    found.put(written(service, decision))
    assert found.converge(complete=True) == []
    assert found.decisions == {}


def test_what_was_promised_before_the_lead_was_lost_is_not_lost() -> None:
    found = Allocator()
    found.set_pools([pool("a", "192.0.2.1-192.0.2.2")])
    for name in ("a", "b", "c"):
        found.put(balancer(name))
    first = {each.service.name: each.addresses for each in found.converge(complete=True)}
    # It was never written. Meanwhile another process may lead, and then this one again.
    found.converge(complete=False)
    again = {each.service.name: each.addresses for each in found.converge(complete=True)}
    assert first == again == {"a": ("192.0.2.1",), "b": ("192.0.2.2",), "c": ()}
