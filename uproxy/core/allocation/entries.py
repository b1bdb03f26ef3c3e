"""What the allocator knows of one Service: what the cluster says, and what has been decided."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Literal

from uproxy.core.allocation.decisions import Condition, Decision
from uproxy.core.allocation.ranges import quoted
from uproxy.core.allocation.requests import Request, Unservable, read_request
from uproxy.core.allocation.sharing import Sharing
from uproxy.core.cluster.load_balancer import (
    CONDITION,
    is_ours,
    recorded_addresses,
    status_addresses,
)
from uproxy.core.cluster.objects import ObjectName, Service
from uproxy.core.ip import parse_ip


class Entry:
    """One Service, for as long as it exists."""

    def __init__(self, service: Service) -> None:
        self.held: tuple[str, ...] = ()
        """Its addresses, by the decisions so far."""
        self.sharing: Sharing | None = None
        """How it shares them; None: they are not in the ledger."""
        self.kind: Hashable = None
        """Its kind (see `PoolTable.kind`), while it waits for an address."""
        self.decision: Decision | None = None
        """The last one, without Events."""
        self._decided_at: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        """The status and the annotation when `held` was decided."""
        self.put(service)

    def put(self, service: Service) -> None:
        """Take note of the Service as it is now."""
        self.service = service
        self.name: ObjectName = service.key
        self.order = (service.metadata.creation_timestamp or "", *service.key)
        """The older one comes first."""
        self.status = status_addresses(service)
        self.recorded = recorded_addresses(service)
        self.request: Request | Unservable | None = (
            read_request(service) if is_ours(service) else None
        )

    @property
    def promised(self) -> bool:
        """Whether the status has yet to say what was decided."""
        return bool(self.held) and set(self.held) != set(self.status)

    @property
    def claim(self) -> tuple[str, ...]:
        """The addresses that it should keep, if it may. A decision stands until its status has
        been written, or until another one has been."""
        if self.promised and self._decided_at == (self.status, self.recorded):
            return self.held
        return self.status

    @property
    def had(self) -> tuple[str, ...]:
        """The addresses that it has had, and so gets back, if they are free."""
        return tuple(dict.fromkeys((*self.status, *self.recorded)))

    @property
    def said(self) -> Condition | None:
        """What is said of it already."""
        if self.decision is not None:
            return self.decision.condition
        for each in self.service.status.conditions or ():
            if each.type == CONDITION:
                status: Literal["True", "False"] = "True" if each.status == "True" else "False"
                return Condition(status, each.reason, each.message)
        return None

    def foreign(self, is_in_pool: Callable[[str], bool]) -> str:
        """Why its status is another controller's; "" if it is not."""
        others = [
            each for each in self.service.ingress if each.hostname or parse_ip(each.ip) is None
        ]
        if others:
            name = quoted(others[0].hostname or others[0].ip or "an entry without an address")
        elif set(self.status) == set(self.recorded) or all(map(is_in_pool, self.status)):
            return ""
        else:
            name = next(each for each in self.status if not is_in_pool(each))
        return (
            f"its status has {name}, which is none of uproxy's addresses; another controller is "
            "likely to serve this Service"
        )

    def decide(self, decision: Decision) -> None:
        """Remember a decision."""
        self.decision = decision
        self._decided_at = self.status, self.recorded


class Entries:
    """All Services that matter here, and which of them are to be looked at."""

    def __init__(self) -> None:
        self.by_name: dict[ObjectName, Entry] = {}
        self.dirty: set[ObjectName] = set()

    def put(self, service: Service) -> None:
        """Take note of a Service, as it is in the cluster now."""
        entry = self.by_name.get(service.key)
        if entry is None:
            # Most Services of a cluster have nothing to do with load balancers.
            if is_ours(service) or has_marks(service):
                self.by_name[service.key] = Entry(service)
                self.dirty.add(service.key)
        elif entry.service != service:
            entry.put(service)
            self.dirty.add(service.key)

    def pop(self, name: ObjectName) -> Entry | None:
        """Forget a Service; None if it is not known."""
        self.dirty.discard(name)
        return self.by_name.pop(name, None)

    def mark_all(self) -> None:
        """Have every Service looked at."""
        self.dirty.update(self.by_name)

    def take_dirty(self) -> list[Entry]:
        """The Services to be looked at."""
        taken = [self.by_name[name] for name in self.dirty]
        self.dirty.clear()
        return taken


def has_marks(service: Service) -> bool:
    """Whether uproxy has written the status of a Service. If another controller has overwritten
    it, it is left alone."""
    status, recorded = status_addresses(service), recorded_addresses(service)
    if status and set(status) != set(recorded):
        return False
    conditions = service.status.conditions or ()
    return bool(recorded) or any(each.type == CONDITION for each in conditions)
