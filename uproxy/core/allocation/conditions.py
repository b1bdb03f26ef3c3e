"""What conditions and Events say about an allocation, in MetalLB's form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from uproxy.core.allocation.decisions import Condition, ServiceEvent
from uproxy.core.allocation.requests import DEPRECATED, PREFIXES, Request, Unservable
from uproxy.core.brief import brief
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.printable import printable

ASSIGNED: Final = "IPAllocated"
FAILED: Final = "AllocationFailed"

_LONGEST: Final = 1000
"""Characters. The API server refuses notes of Events with more than 1024, and a reason may have the
names of several Services, each of up to 127."""


def assigned(addresses: Iterable[str], pool: str, *but: str) -> Condition:
    """For a Service with addresses. `but` has what else is to be said, or ""."""
    text = f"Assigned IP {listed(addresses)}" + (f' from pool "{pool}"' if pool else "")
    return Condition("True", ASSIGNED, _line("; ".join(filter(None, (text, *but)))))


def pending(reason: str) -> Condition:
    """For a Service that has to wait."""
    return Condition("False", FAILED, _line(reason))


def unservable(why: Unservable) -> Condition:
    """For a Service that cannot have addresses as it is."""
    return Condition("False", why.reason, _line(why.message))


def unservable_events(why: Unservable) -> tuple[ServiceEvent, ...]:
    return (_warning(why.event, why.message),) if why.event else ()


def assigned_event(addresses: Iterable[str]) -> ServiceEvent:
    return ServiceEvent("Normal", ASSIGNED, f"Assigned IP {listed(addresses)}")


def additional_event(address: str) -> ServiceEvent:
    return ServiceEvent("Normal", ASSIGNED, f'Assigned additional IP "{address}"')


def additional_failure(reason: str) -> str:
    """Why a Service has an address of one family only."""
    return f"cannot assign additional IP in PreferDualStack: {reason}"


def additional_failed_event(reason: str) -> ServiceEvent:
    return ServiceEvent("Normal", "AdditionalAssignFailed", _line(additional_failure(reason)))


def cleared_event(name: ObjectName, reason: str) -> ServiceEvent:
    note = (
        f'current IP for "{name}" not allowed by config, will attempt for new IP assignment: '
        f"{reason}"
    )
    return ServiceEvent("Normal", "ClearAssignment", _line(note))


def family_event(reason: str) -> ServiceEvent:
    return _warning("nolbIPsIPFamily", f"Failed to retrieve LBIPs IPFamily: {reason}")


def failed_event(name: ObjectName, reason: str) -> ServiceEvent:
    return _warning(FAILED, f'Failed to allocate IP for "{name}": {reason}')


def invalid_request(problem: str) -> str:
    """Why the request of a Service that has addresses is not heeded."""
    return f"invalid requested loadbalancer IPs: {problem}"


def invalid_request_event(request: Request) -> ServiceEvent:
    """For a Service that has addresses, and keeps them."""
    if not request.families:
        note = f"Failed to retrieve ClusterIPs IPFamily: {request.problem}"
        return _warning("noclusterIPsIPFamily", note)
    return _warning("LoadBalancerFailed", invalid_request(request.problem))


def deprecation_events(request: Request) -> Iterable[ServiceEvent]:
    """One for each annotation whose name MetalLB has given up."""
    for name in request.deprecated:
        current = name.replace(DEPRECATED, PREFIXES[0])
        yield _warning("deprecatedAnnotation", f"annotation {name} is deprecated; use {current}")


def listed(addresses: Iterable[str]) -> str:
    """Addresses, as Go prints a list of them."""
    texts = " ".join(f'"{each}"' for each in addresses)
    return f"[{texts}]"


def _warning(reason: str, note: str) -> ServiceEvent:
    return ServiceEvent("Warning", reason, _line(note))


def _line(text: str) -> str:
    return brief(printable(text), _LONGEST)
