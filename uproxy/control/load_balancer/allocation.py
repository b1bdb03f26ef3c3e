"""Feeds the allocator with what the cluster says, and hands on what it decides.

Every process that could be the next to decide follows what is going on. Only the one that leads
decides; the others take note of the addresses that Services have.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, Protocol

from uproxy.control.load_balancer.supplies import Allocating, Supply
from uproxy.control.time_slices import TimeSlices
from uproxy.core.allocation.decisions import Decision
from uproxy.core.allocation.holdings import PoolUsage
from uproxy.core.allocation.ranges import quoted
from uproxy.core.allocation.rewrites import Rewrites
from uproxy.core.cluster.load_balancer import CONDITION, POOL, assigned_addresses, is_ours
from uproxy.core.cluster.objects import Object, ObjectName, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.core.ip import Family
from uproxy.core.report.load_balancer import ServiceAddresses
from uproxy.core.retry import earliest
from uproxy.host.threads import run_to_completion

_AT_ONCE: Final = 200
"""Changed Services up to which the allocator is called on the event loop, where it takes 5 ms for
so many. For 10,000 it takes 0.3 s."""


class Writer(Protocol):
    """Where decisions go."""

    @property
    def reasons(self) -> Mapping[ObjectName, str]: ...
    def put(self, decision: Decision) -> None: ...
    def remove(self, name: ObjectName) -> None: ...
    def clear(self) -> None: ...


class Allocation:
    """One of the parts of the load balancer."""

    name = "allocation of addresses"

    def __init__(
        self,
        state: ClusterState,
        supply: Supply,
        writer: Writer,
        *,
        leading: Callable[[], bool],
        usage_changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`usage_changed` is called when `usage` may have changed."""
        self.rewrites = Rewrites()
        self.usage: Mapping[str, Mapping[Family, PoolUsage]] = {}
        """The use of each pool, by its name."""
        self._state = state
        self._supply = supply
        self._writer = writer
        self._leading = leading
        self._usage_changed = usage_changed
        self._clock = clock
        self._wake = asyncio.Event()
        self._dirty: set[ObjectName] = set()
        self._fed: set[ObjectName] = set()
        """Services of which the allocator has been told since its last decisions."""
        self._decisions: dict[ObjectName, Decision] = {}
        self._left_alone: dict[ObjectName, str] = {}
        """Services whose status another controller rewrites, each with the reason."""
        self._decided = False
        """Whether this process has decided in the last step."""
        self._allocator = self._anew()

    @property
    def deciding(self) -> bool:
        """Whether this process hands out addresses, and knows all that it has to know for that."""
        return self._leading() and self._state.synced and self._supply.complete

    def object_changed(self, kind: type[Object], name: ObjectName) -> None:
        """See Part."""
        if kind is Service:
            self._dirty.add(name)
            self._wake.set()
        if self._supply.object_changed(kind, name):
            self._wake.set()

    def changed(self) -> None:
        """Something has changed, perhaps who leads, or the pools."""
        self._wake.set()

    async def release(self) -> None:
        """Nothing is held here."""

    async def run(self) -> None:
        """See Part."""
        self.begin_anew()
        while True:
            await self._step()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_due()):
                    await self._wake.wait()

    def decide_now(self) -> None:
        """Bring everything up to date, without letting other tasks run."""
        for _ in self.feed():
            pass
        for _ in self._conclude(self._allocator.converge(complete=self._begin())):
            pass

    async def _step(self) -> None:
        self._wake.clear()
        slices, many = TimeSlices(), len(self._dirty) > _AT_ONCE
        for _ in self.feed():
            await slices.pause_if_due()
        before, complete = self._decided, self._begin()
        allocator = self._allocator
        if many or before != complete:
            # Nothing else uses the allocator meanwhile.
            decisions = await run_to_completion(lambda: allocator.converge(complete=complete))
        else:
            decisions = allocator.converge(complete=complete)
        if complete != self.deciding:
            # The lead was lost or won meanwhile, so that these decisions are void. It may have
            # changed back before this is looked at again.
            self._writer.clear()
            self.begin_anew()
            self._wake.set()
            return
        for _ in self._conclude(decisions):
            await slices.pause_if_due()

    def begin_anew(self) -> None:
        """Forget what was decided, and look at everything again."""
        self._allocator = self._anew()

    def _anew(self) -> Allocating:
        self._dirty.update(self._state.service_names())
        self._decisions.clear()
        self._decided = False
        return self._supply.begin_anew()

    def feed(self) -> Iterator[None]:
        """Tell the allocator what has changed. Others may run whenever this yields."""
        yield from self._supply.tell()
        while self._dirty:
            name = self._dirty.pop()
            self._fed.add(name)
            service = self._state.service(name)
            if service is not None:
                self.rewrites.seen(service, self._clock())
                self._allocator.put(service)
            else:
                self._forget(name)
            yield

    def _forget(self, name: ObjectName) -> None:
        self._allocator.remove(name)
        self.rewrites.gone(name)
        self._drop(name)

    def _drop(self, name: ObjectName) -> None:
        """Nothing is decided about a Service any more."""
        self._writer.remove(name)
        self._decisions.pop(name, None)
        self._left_alone.pop(name, None)

    def _begin(self) -> bool:
        """Whether this process decides from now on."""
        deciding = self.deciding
        if self._decided and not deciding:
            self._writer.clear()
            self._left_alone.clear()
        self._decided = deciding
        return deciding

    def _conclude(self, decisions: Iterable[Decision]) -> Iterator[None]:
        """Hand on what was decided. Others may run whenever this yields."""
        now = self._clock()
        fed, self._fed = self._fed, set()
        for decision in decisions:
            fed.discard(decision.service)
            self._decisions[decision.service] = replace(decision, events=())
            if self._decided:
                self._hand_on(decision, now)
            yield
        for name in fed:
            if not self._decided or name not in self._allocator.decisions:
                self._drop(name)
        if self._decided:
            self._end_of_fights(now)
        self.usage = self._supply.usage
        self._usage_changed()

    def _hand_on(self, decision: Decision, now: float) -> None:
        name, reason = decision.service, self.rewrites.reason(decision.service, now)
        if reason:
            self._left_alone[name] = reason
        if decision.foreign or reason:
            self._writer.remove(name)
        else:
            self._left_alone.pop(name, None)
            self._writer.put(decision)

    def _end_of_fights(self, now: float) -> None:
        for name in list(self._left_alone):
            if not self.rewrites.reason(name, now) and name in self._decisions:
                self._hand_on(self._decisions[name], now)

    def _until_due(self) -> float | None:
        over = earliest(*(self.rewrites.over(name) for name in self._left_alone))
        return None if over is None else max(0.1, over - self._clock())

    def statuses(self) -> Iterator[ServiceAddresses]:
        """All Services of type LoadBalancer that are for uproxy, in the order of their names."""
        reasons = self._writer.reasons
        for name in sorted(self._state.service_names()):
            service = self._state.service(name)
            if service is not None and is_ours(service):
                yield self._status(service, reasons.get(name, ""))

    def _status(self, service: Service, unwritten: str) -> ServiceAddresses:
        name, decision = service.key, self._decisions.get(service.key)
        if decision is None:
            return _as_written(service)
        condition = decision.condition
        failed = condition is not None and condition.status == "False"
        reason = condition.message if condition is not None and failed else ""
        return ServiceAddresses(
            service=name,
            addresses=decision.addresses,
            pool=decision.pool,
            reason=reason or (unwritten and f"its status cannot be written: {unwritten}"),
            foreign=decision.foreign or self._left_alone.get(name, ""),
        )


def _as_written(service: Service) -> ServiceAddresses:
    """What another process has written, if this one has decided nothing."""
    found = (each for each in service.status.conditions or () if each.type == CONDITION)
    addresses = assigned_addresses(service)
    return ServiceAddresses(
        service=service.key,
        addresses=addresses,
        pool=(service.metadata.annotations or {}).get(POOL, ""),
        reason=next((each.message for each in found if each.status == "False"), ""),
        foreign="" if addresses else _written_by_another(service),
    )


def _written_by_another(service: Service) -> str:
    """What a status without an address of ours has; "" if it has nothing. No condition says so, as
    such a Service is left alone."""
    for each in service.ingress:
        name = each.ip or quoted(each.hostname or "an entry without an address")
        return f"its status has {name}, which uproxy has not written"
    return ""
