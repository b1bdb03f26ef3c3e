from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.builders import service
from tests.fake_api.patching import patched
from uproxy.core.allocation.decisions import Condition as Outcome
from uproxy.core.allocation.decisions import Decision
from uproxy.core.allocation.status_patch import status_patch, without_times
from uproxy.core.cluster.load_balancer import ASSIGNED, CONDITION, POOL
from uproxy.core.cluster.objects import Condition, LoadBalancerIngress, ObjectName, Service

WEB = ObjectName("default", "web")
THEN, NOW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
OTHERS = Condition(
    type="example.com/Ready", status="True", last_transition_time=THEN, reason="A", message="b"
)
ASSIGN = Decision(
    service=WEB,
    addresses=("192.0.2.10", "2001:db8::10"),
    pool="default",
    condition=Outcome("True", "Assigned", "from the pool default"),
)
WAIT = Decision(service=WEB, condition=Outcome("False", "PoolExhausted", "no address is free"))
NOT_OURS = Decision(service=WEB)


def web(*, conditions: tuple[Condition, ...] = (), **fields: Any) -> Service:
    found = service("web", type="LoadBalancer", **fields)
    metadata = msgspec.structs.replace(found.metadata, resource_version="7")
    status = msgspec.structs.replace(found.status, conditions=conditions or None)
    return msgspec.structs.replace(found, metadata=metadata, status=status)


def after(before: Service, decision: Decision, mode: str = "VIP") -> Service:
    """The Service when the patch was applied."""
    patch = status_patch(before, decision, ip_mode=mode, now=NOW)
    assert patch is not None
    data = patched(msgspec.to_builtins(before), patch, strategic=False)
    return msgspec.convert(data, Service)


def own(found: Service) -> Condition | None:
    conditions = found.status.conditions or ()
    return next((each for each in conditions if each.type == CONDITION), None)


@pytest.mark.parametrize("mode", ["VIP", "Proxy"])
@pytest.mark.parametrize("decision", [ASSIGN, WAIT], ids=["assigned", "pending"])
def test_what_was_written_is_not_written_again(decision: Decision, mode: str) -> None:
    found = after(web(conditions=(OTHERS,)), decision, mode)
    assert status_patch(found, decision, ip_mode=mode, now="later") is None
    assert [each.ip for each in found.ingress] == list(decision.addresses)
    assert {each.ip_mode for each in found.ingress} <= {mode}
    annotations = found.metadata.annotations or {}
    assert annotations.get(ASSIGNED, "") == ",".join(decision.addresses)
    assert annotations.get(POOL, "") == decision.pool
    assert OTHERS in (found.status.conditions or ())


def test_it_is_for_one_version_only() -> None:
    patch = status_patch(web(), ASSIGN, ip_mode="VIP", now=NOW)
    assert patch is not None
    assert patch["metadata"]["resourceVersion"] == "7"


def test_a_time_changes_only_with_the_status_of_the_condition() -> None:
    pending = web(
        conditions=(Condition(type=CONDITION, status="False", last_transition_time=THEN),)
    )
    condition = own(after(pending, WAIT))
    assert condition is not None
    assert (condition.last_transition_time, condition.reason) == (THEN, "PoolExhausted")
    condition = own(after(pending, ASSIGN))
    assert condition is not None
    assert condition.last_transition_time == NOW


def test_a_condition_without_a_time_gets_one() -> None:
    condition = own(after(web(conditions=(Condition(type=CONDITION, status="False"),)), WAIT))
    assert condition is not None
    assert condition.last_transition_time == NOW


def test_the_generation_is_said_if_there_is_one() -> None:
    counted = web()
    metadata = msgspec.structs.replace(counted.metadata, generation=3)
    condition = own(after(msgspec.structs.replace(counted, metadata=metadata), WAIT))
    assert condition is not None
    assert condition.observed_generation == 3
    patch = status_patch(web(), WAIT, ip_mode="VIP", now=NOW)
    assert patch is not None
    assert "observedGeneration" not in patch["status"]["conditions"][0]


def test_a_status_of_another_controller_is_left_alone() -> None:
    foreign = Decision(service=WEB, addresses=("192.0.2.10",), foreign="another one wrote it")
    assert status_patch(web(ingress=["198.51.100.1"]), foreign, ip_mode="VIP", now=NOW) is None


def test_addresses_that_are_taken_over_stay_as_they_are() -> None:
    """MetalLB has written the status, with its own annotation."""
    theirs = web(ingress=ASSIGN.addresses, annotations={POOL: "default"})
    patch = status_patch(theirs, ASSIGN, ip_mode="VIP", now=NOW)
    assert patch is not None
    assert "loadBalancer" not in patch["status"]
    assert patch["metadata"]["annotations"] == {ASSIGNED: ",".join(ASSIGN.addresses)}


def test_what_was_assigned_is_cleared() -> None:
    found = after(after(web(), ASSIGN), WAIT)
    assert found.ingress == ()
    assert not found.metadata.annotations
    condition = own(found)
    assert condition is not None
    assert condition.status == "False"


def test_every_mark_goes_when_the_service_is_not_for_us_any_more() -> None:
    found = after(after(web(conditions=(OTHERS,)), ASSIGN), NOT_OURS)
    assert found.ingress == ()
    assert not found.metadata.annotations
    assert found.status.conditions == (OTHERS,)
    assert status_patch(found, NOT_OURS, ip_mode="VIP", now=NOW) is None


@pytest.mark.parametrize(
    "untouched",
    [
        pytest.param(web(ingress=["198.51.100.1"]), id="another's address"),
        pytest.param(web(annotations={POOL: "theirs"}), id="MetalLB's annotation"),
        pytest.param(web(conditions=(OTHERS,)), id="another's condition"),
        pytest.param(web(), id="nothing"),
    ],
)
def test_what_was_never_ours_stays(untouched: Service) -> None:
    assert status_patch(untouched, NOT_OURS, ip_mode="VIP", now=NOW) is None


def test_what_another_has_written_since_stays_when_our_marks_go() -> None:
    theirs = web(ingress=["198.51.100.1"], annotations={ASSIGNED: "192.0.2.10"})
    found = after(theirs, NOT_OURS)
    assert [each.ip for each in found.ingress] == ["198.51.100.1"]
    assert not found.metadata.annotations


def test_a_mode_that_is_not_said_is_vip() -> None:
    known = after(web(), ASSIGN)
    plain = tuple(LoadBalancerIngress(ip=each) for each in ASSIGN.addresses)
    balancer = msgspec.structs.replace(known.status.load_balancer, ingress=plain)
    status = msgspec.structs.replace(known.status, load_balancer=balancer)
    known = msgspec.structs.replace(known, status=status)
    assert status_patch(known, ASSIGN, ip_mode="VIP", now=NOW) is None
    assert [each.ip_mode for each in after(known, ASSIGN, "Proxy").ingress] == ["Proxy"] * 2


def test_a_host_name_in_the_status_goes() -> None:
    named = LoadBalancerIngress(ip="192.0.2.10", hostname="lb.example.com")
    one = Decision(service=WEB, addresses=("192.0.2.10",), condition=ASSIGN.condition)
    assert [each.hostname for each in after(web(ingress=[named]), one).ingress] == [""]


def test_patches_are_compared_without_versions_and_times() -> None:
    one = status_patch(web(), WAIT, ip_mode="VIP", now=THEN)
    metadata = msgspec.structs.replace(web().metadata, resource_version="8")
    later = msgspec.structs.replace(web(), metadata=metadata)
    other = status_patch(later, WAIT, ip_mode="VIP", now=NOW)
    different = status_patch(web(), ASSIGN, ip_mode="VIP", now=NOW)
    assert one is not None
    assert other is not None
    assert different is not None
    assert one != other
    assert without_times(one) == without_times(other) != without_times(different)
