"""What is decided about a Service: its addresses, and what its status and Events say of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from uproxy.core.cluster.objects import ObjectName


class Condition(NamedTuple):
    """The condition `uproxy.dev/AddressAssigned` of a Service."""

    status: Literal["True", "False"]
    reason: str
    """One word in CamelCase."""
    message: str


class ServiceEvent(NamedTuple):
    """An Event on a Service. Its reason and note have MetalLB's form."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the status of one Service should say."""

    service: ObjectName
    addresses: tuple[str, ...] = ()
    """In canonical form, in the order in which they are written."""
    pool: str = ""
    """The pool of the addresses. With node addresses there is none."""
    condition: Condition | None = None
    """None: the Service is not for uproxy, or not any more, so every mark of uproxy goes."""
    events: tuple[ServiceEvent, ...] = ()
    """Those to send now. A decision that is returned again later does not repeat them."""
    foreign: str = ""
    """Why the status belongs to another controller. Then nothing at all is written."""
