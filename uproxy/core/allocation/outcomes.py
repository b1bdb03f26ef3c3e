"""What a pass of the allocator comes to for one Service, and the decision that it makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from uproxy.core.allocation import conditions
from uproxy.core.allocation.decisions import Condition, Decision, ServiceEvent
from uproxy.core.allocation.entries import Entry, has_marks
from uproxy.core.allocation.requests import Request, Unservable
from uproxy.core.cluster.objects import ObjectName


@dataclass(slots=True)
class Outcome:
    """What becomes of one Service."""

    entry: Entry
    pool: str = ""
    foreign: str = ""
    reason: str = ""
    """Why it gets no address, or no second one."""
    events: list[ServiceEvent] = field(default_factory=list)

    def conclude(self) -> Decision | None:
        """Remember the decision. It is returned with its Events; None: there is nothing to
        decide."""
        if self.entry.request is None and not has_marks(self.entry.service):
            return None
        decision = self._decision()
        events = self._news(decision)
        self.entry.decide(decision)
        return replace(decision, events=tuple(events)) if events else decision

    def _decision(self) -> Decision:
        return Decision(
            service=self.entry.name,
            addresses=self.entry.held,
            pool=self.pool,
            condition=None if self.foreign else self._condition(),
            foreign=self.foreign,
        )

    def _news(self, decision: Decision) -> Sequence[ServiceEvent]:
        """The Events to send with a decision. Those that have been sent already are left out: each
        restart, and each new leader, would otherwise repeat them for every Service that waits."""
        if decision.condition is None or decision.condition == self.entry.said:
            return ()
        return (*self._about_request(), *self.events)

    def _condition(self) -> Condition | None:
        match self.entry.request:
            case None:
                return None
            case Unservable() as why:
                return conditions.unservable(why)
            case Request() as request if self.entry.held:
                problem = conditions.invalid_request(request.problem) if request.problem else ""
                more = conditions.additional_failure(self.reason) if self.reason else ""
                return conditions.assigned(self.entry.held, self.pool, problem, more)
            case Request():
                return conditions.pending(self.reason)

    def _about_request(self) -> Sequence[ServiceEvent]:
        match self.entry.request:
            case Unservable() as why:
                return conditions.unservable_events(why)
            case Request() as request if request.problem and self.entry.held:
                return (conditions.invalid_request_event(request),)
        return ()


def conclude(
    outcomes: Iterable[Outcome], decisions: dict[ObjectName, Decision]
) -> Iterator[Decision]:
    """The decisions that outcomes make. `decisions`, which has those of all Services without their
    Events, is kept up to date."""
    for outcome in outcomes:
        entry, decision = outcome.entry, outcome.conclude()
        decisions.pop(entry.name, None)
        if decision is not None:
            assert entry.decision is not None
            decisions[entry.name] = entry.decision
            yield decision
