"""What has to be written so that a Service says what was decided about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from uproxy.core.allocation.decisions import Decision
from uproxy.core.cluster.load_balancer import (
    ASSIGNED,
    CONDITION,
    POOL,
    recorded_addresses,
    status_addresses,
)
from uproxy.core.cluster.objects import Condition, Service

VIP = "VIP"
"""The ipMode that a status without one stands for (KEP-1860)."""


def status_patch(
    service: Service, decision: Decision, *, ip_mode: str, now: str
) -> dict[str, Any] | None:
    """A JSON merge patch for the status of a Service, with its annotations; None: there is nothing
    to write. `now` is the time as RFC 3339.

    It applies to this version of the Service only: the server refuses it if another controller has
    written since.
    """
    if decision.foreign:
        return None
    annotations = dict(_annotations(service, decision))
    status = dict(_status(service, decision, ip_mode, now))
    if not annotations and not status:
        return None
    patch: dict[str, Any] = {"metadata": {"resourceVersion": service.metadata.resource_version}}
    if annotations:
        patch["metadata"]["annotations"] = annotations
    if status:
        patch["status"] = status
    return patch


def without_times(patch: dict[str, Any]) -> dict[str, Any]:
    """The patch without what differs whenever it is made, to compare it with an earlier one."""
    metadata = {**patch["metadata"], "resourceVersion": ""}
    status = dict(patch.get("status", {}))
    if status.get("conditions"):
        lasting = [{**each, "lastTransitionTime": ""} for each in status["conditions"]]
        status["conditions"] = lasting
    return {"metadata": metadata, "status": status}


def _annotations(service: Service, decision: Decision) -> Iterator[tuple[str, str | None]]:
    """The annotations that differ; None: one is to be removed."""
    present = service.metadata.annotations or {}
    if decision.condition is None and ASSIGNED not in present:
        return  # The name of a pool, if there is one, comes from MetalLB itself.
    wanted = {ASSIGNED: ",".join(decision.addresses), POOL: decision.pool}
    for name, value in wanted.items():
        if present.get(name) != (value or None):
            yield name, value or None


def _status(
    service: Service, decision: Decision, ip_mode: str, now: str
) -> Iterator[tuple[str, Any]]:
    """The fields of the status that differ."""
    if _is_for_us(service, decision):
        present = [(each.ip, each.ip_mode or VIP) for each in service.ingress]
        wanted = [(address, ip_mode) for address in decision.addresses]
        if present != wanted or any(each.hostname for each in service.ingress):
            ingress = [{"ip": address, "ipMode": mode} for address, mode in wanted]
            yield "loadBalancer", {"ingress": ingress or None}
    conditions = service.status.conditions or ()
    others = [each for each in conditions if each.type != CONDITION]
    own = next((each for each in conditions if each.type == CONDITION), None)
    wanted_condition = _condition(service, decision, own, now)
    if wanted_condition != own:
        every = [*others, *filter(None, (wanted_condition,))]
        yield "conditions", [_written(each) for each in every] or None


def _is_for_us(service: Service, decision: Decision) -> bool:
    """Whether the addresses in the status are to be those of the decision. If the Service is not
    for uproxy any more, only what uproxy has written itself goes."""
    if decision.condition is not None:
        return True
    recorded = recorded_addresses(service)
    return bool(recorded) and status_addresses(service) == recorded


def _condition(
    service: Service, decision: Decision, before: Condition | None, now: str
) -> Condition | None:
    if decision.condition is None:
        return None
    status, reason, message = decision.condition
    since = before.last_transition_time if before is not None and before.status == status else None
    return Condition(
        type=CONDITION,
        status=status,
        observed_generation=service.metadata.generation,
        last_transition_time=since or now,
        reason=reason,
        message=message,
    )


def _written(condition: Condition) -> dict[str, Any]:
    """A condition as JSON. The API server wants all fields but one."""
    written: dict[str, Any] = {
        "type": condition.type,
        "status": condition.status,
        "lastTransitionTime": condition.last_transition_time,
        "reason": condition.reason,
        "message": condition.message,
    }
    if condition.observed_generation:
        written["observedGeneration"] = condition.observed_generation
    return written
