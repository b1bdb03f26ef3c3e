"""Addresses for Services that come from manifests: there is no cluster to write them to.

What was decided is added to each Service on its way into the state. Nothing is kept on disk, and
nothing has to be: the same manifests get the same addresses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from uproxy.control.load_balancer.allocation import Allocation
from uproxy.control.load_balancer.supplies import Supply
from uproxy.control.time_slices import TimeSlices
from uproxy.core.allocation.decisions import Decision, ServiceEvent
from uproxy.core.cluster.load_balancer import ASSIGNED, CONDITION, POOL
from uproxy.core.cluster.objects import (
    Condition,
    LoadBalancerIngress,
    LoadBalancerStatus,
    Object,
    ObjectName,
    Service,
    ServiceStatus,
)
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.status import ObjectStatus
from uproxy.sources.sink import Sink

log = logging.getLogger(__name__)

_LEVELS: Final = {"Normal": logging.INFO, "Warning": logging.WARNING}


class Overlay:
    """Where decisions go, and through which Services pass."""

    reasons: Mapping[ObjectName, str] = {}

    def __init__(self) -> None:
        self._sink: Sink | None = None
        self._source = ""
        self._services: dict[ObjectName, Service] = {}
        """As the manifests have them."""
        self._decisions: dict[ObjectName, Decision] = {}

    def connect(self, sink: Sink) -> None:
        """Say where Services are delivered."""
        self._sink = sink

    def taken_in(self, source: str, obj: Object) -> Object:
        """An object as it is delivered."""
        if not isinstance(obj, Service):
            return obj
        self._source = source
        self._services[obj.key] = obj
        return with_decision(obj, self._decisions.get(obj.key))

    def listed(self, objects: Sequence[Object]) -> None:
        """These are all that the manifests have now."""
        names = {each.key for each in objects if isinstance(each, Service)}
        for name in self._services.keys() - names:
            self.dropped(name)

    def dropped(self, name: ObjectName) -> None:
        """A Service is not in the manifests any more."""
        self._services.pop(name, None)

    def put(self, decision: Decision) -> None:
        """See Writer."""
        name = decision.service
        log_events(name, decision.events)
        decision = replace(decision, events=())
        if self._decisions.get(name) == decision:
            return  # Every version of the Service has come with it.
        self._decisions[name] = decision
        service = self._services.get(name)
        if service is not None and self._sink is not None:
            self._sink.apply(self._source, with_decision(service, decision))

    def remove(self, name: ObjectName) -> None:
        """See Writer."""
        if self._decisions.pop(name, None) is not None and self._sink is not None:
            service = self._services.get(name)
            if service is not None:
                self._sink.apply(self._source, service)

    def clear(self) -> None:
        """See Writer. What was handed out stays: no other process could go on with it."""


class InMemoryAllocation:
    """One of the parts of the load balancer, where there is no cluster."""

    name = "allocation of addresses"

    def __init__(self, state: ClusterState, supply: Supply) -> None:
        self._overlay = Overlay()
        self._wake = asyncio.Event()
        self._has_run = False
        self.allocation = Allocation(state, supply, self._overlay, leading=lambda: True)

    def sink(self, behind: Sink) -> Sink:
        """What the manifests are delivered to, in the place of `behind`."""
        self._overlay.connect(behind)
        return _OverlaySink(self._overlay, behind, self._decide)

    def object_changed(self, kind: type[Object], name: ObjectName) -> None:
        """See Part."""
        self.allocation.object_changed(kind, name)
        self._wake.set()

    def changed(self) -> None:
        """See Part."""
        self._wake.set()

    async def release(self) -> None:
        """Nothing is held here."""

    async def run(self) -> None:
        """See Part."""
        if self._has_run:
            self.allocation.begin_anew()  # An unexpected error has ended it.
        self._has_run = True
        while True:
            self._wake.clear()
            # After a start, the addresses of all Services have just come back to the state.
            slices = TimeSlices()
            for _ in self.allocation.feed():
                await slices.pause_if_due()
            self.allocation.decide_now()
            await self._wake.wait()

    def _decide(self) -> None:
        """Decide before anything else happens, so that no Service is served without its address
        first. If that fails, the task of this part fails in the same way, and says so."""
        try:
            self.allocation.decide_now()
        except Exception:
            log.debug("cannot decide about addresses", exc_info=True)
            self._wake.set()


class _OverlaySink:
    """A Sink that adds what was decided."""

    def __init__(self, overlay: Overlay, behind: Sink, decide: Callable[[], None]) -> None:
        self._overlay = overlay
        self._behind = behind
        self._decide = decide

    def replace(self, source: str, objects: Sequence[Object]) -> None:
        self._overlay.listed(objects)
        self._behind.replace(source, [self._overlay.taken_in(source, each) for each in objects])
        self._decide()

    def apply(self, source: str, obj: Object) -> None:
        self._behind.apply(source, self._overlay.taken_in(source, obj))
        self._decide()

    def remove(self, source: str, kind: type[Object], key: ObjectName) -> None:
        if kind is Service:
            self._overlay.dropped(key)
        self._behind.remove(source, kind, key)
        self._decide()

    def report_errors(self, source: str, errors: Sequence[ObjectStatus]) -> None:
        self._behind.report_errors(source, errors)


def with_decision(service: Service, decision: Decision | None) -> Service:
    """The Service as a cluster would have it when the decision was written."""
    if decision is None or decision.condition is None or decision.foreign:
        return service
    marks = {ASSIGNED: ",".join(decision.addresses), POOL: decision.pool}
    annotations = dict(service.metadata.annotations or {})
    annotations.update({name: value for name, value in marks.items() if value})
    status, reason, message = decision.condition
    own = Condition(type=CONDITION, status=status, reason=reason, message=message)
    ingress = tuple(LoadBalancerIngress(ip=each) for each in decision.addresses)
    return msgspec.structs.replace(
        service,
        metadata=msgspec.structs.replace(service.metadata, annotations=annotations or None),
        status=ServiceStatus(
            load_balancer=LoadBalancerStatus(ingress=ingress or None), conditions=(own,)
        ),
    )


def log_events(name: ObjectName, events: Sequence[ServiceEvent]) -> None:
    """Say in the log what there are Events for in a cluster."""
    for event in events:
        log.log(_LEVELS[event.type], "Service %s: %s", name, event.note)
