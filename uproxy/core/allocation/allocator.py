"""Which Service holds which addresses of pools, and what is decided about each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from uproxy.core.allocation import conditions
from uproxy.core.allocation.adoption import loss
from uproxy.core.allocation.decisions import Decision
from uproxy.core.allocation.entries import Entries, Entry
from uproxy.core.allocation.holdings import Holdings, PoolUsage
from uproxy.core.allocation.outcomes import Outcome, conclude
from uproxy.core.allocation.pool_table import Namespaces, PoolTable
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.requests import Request
from uproxy.core.allocation.search import Choice, Search
from uproxy.core.cluster.objects import ObjectName, Service
from uproxy.core.ip import Family

_Outcomes = dict[ObjectName, Outcome]


class Allocator:
    """Hands out the addresses of pools.

    Changes are collected by the other methods and take effect in `converge`. `taken` says why an
    address may not be handed out at all, for example "an address of node worker-2"; "" if it may.
    """

    def __init__(self, taken: Callable[[str], str] = lambda _: "") -> None:
        self._taken = taken
        self._entries = Entries()
        self._namespaces: Namespaces = {}
        self._known: set[str] = set()
        """Addresses that are taken, as far as `recheck` has named them."""
        self._holdings = Holdings(PoolTable(()), taken)
        self._waiting: dict[ObjectName, str] = {}
        """The Services that have no address, or one family of two, and why."""
        self._retry = False
        """Whether one of these may get an address now."""
        self._complete = False
        self.decisions: dict[ObjectName, Decision] = {}
        """What holds for each Service that is, or was, for uproxy. Without Events."""

    def put(self, service: Service) -> None:
        """Take note of a Service, as it is in the cluster now."""
        self._entries.put(service)

    def remove(self, name: ObjectName) -> None:
        """Forget a Service that has been deleted."""
        entry = self._entries.pop(name)
        if entry is not None:
            self._retry = self._retry or bool(entry.held)
            self._release(entry)
            self._waiting.pop(name, None)
            self.decisions.pop(name, None)

    def set_pools(self, pools: Iterable[Pool]) -> None:
        """Set all pools. They must not overlap (see `pools.without_overlaps`)."""
        table = PoolTable(pools)
        if table.pools != self._holdings.table.pools:
            self._begin_anew(table)

    def set_namespaces(self, labels: Namespaces) -> None:
        """Set the labels of all namespaces, by which pools may select."""
        self._namespaces = {name: dict(own) for name, own in labels.items()}
        if self._holdings.table.set_namespaces(self._namespaces):
            self._entries.mark_all()
            self._retry = True

    def recheck(self, addresses: Iterable[str]) -> None:
        """Ask `taken` again about these addresses. Those of them that are taken are not counted as
        free addresses of their pool."""
        for address in addresses:
            keep = self._known.add if self._taken(address) else self._known.discard
            keep(address)
            if self._holdings.recheck(address):
                self._retry = True

    def converge(self, *, complete: bool) -> Sequence[Decision]:
        """Decide about all that has changed. Returns the decisions that are new, that differ from
        those before, or whose Service has changed, so that it may have to be written again.

        `complete` says that every Service and pool is known, and that it is this process that
        decides. Before, what statuses hold is adopted, and nothing is cleared or handed out.
        When it becomes true, all is built up again from the statuses.
        """
        if complete and not self._complete:
            for each in self._entries.by_name.values():
                each.held = ()
            # The old table goes on behind what has been handed out. What no status says is lost.
            self._begin_anew(PoolTable(self._holdings.table.pools))
        self._complete = complete
        outcomes = _Outcomes()
        self._adopt(outcomes)
        if complete:
            self._allocate(outcomes)
        told = [each for each in outcomes.values() if complete or each.entry.held]
        if not complete:
            self._forget_decisions(each.entry for each in outcomes.values() if not each.entry.held)
        return list(conclude(map(self._with_pool, told), self.decisions))

    def usage(self) -> Mapping[str, Mapping[Family, PoolUsage]]:
        """The use of each pool, by the pool's name."""
        return self._holdings.usage()

    def _begin_anew(self, table: PoolTable) -> None:
        """Forget who holds what, and have every Service looked at."""
        table.set_namespaces(self._namespaces)
        self._holdings = Holdings(table, self._taken, self._known)
        for each in self._entries.by_name.values():
            each.sharing = None
        self._entries.mark_all()
        self._retry = True

    def _adopt(self, outcomes: _Outcomes) -> None:
        """The first pass: every Service keeps what it has, if it may.

        No Service loses an address to one that comes later: first come those that hold theirs
        unchanged, then those whose status says so, and last those to which an address has been
        promised that their status does not say yet. Among these the older one comes first.
        """
        dirty = self._entries.take_dirty()
        dirty += self._promised_to_others(dirty)
        ranked = sorted((_rank(each), each.order, each) for each in dirty)
        # A Service that changes how it shares an address may open it for others.
        self._retry = self._retry or any(rank and each.sharing for rank, _, each in ranked)
        for each in dirty:
            self._release(each)
        for _, _, each in ranked:
            outcomes[each.name] = self._settle(each)

    def _promised_to_others(self, dirty: Iterable[Entry]) -> list[Entry]:
        """The Services that have been promised an address which the status of a dirty one has."""
        names = {
            name
            for entry in dirty
            for address in entry.status
            for name in self._holdings.holders[address]
        }
        found = (
            self._entries.by_name[name] for name in names.difference(each.name for each in dirty)
        )
        return [each for each in found if each.promised]

    def _settle(self, entry: Entry) -> Outcome:
        """Let a Service keep what it has, or take it away."""
        outcome, before, claim = Outcome(entry), entry.held, entry.claim
        entry.held = ()
        self._waiting.pop(entry.name, None)
        request = entry.request
        if request is not None:
            outcome.foreign = entry.foreign(self._is_in_pool)
        if isinstance(request, Request) and not outcome.foreign:
            self._keep(entry, request, claim, outcome)
        self._retry = self._retry or not set(before) <= set(entry.held)
        return outcome

    def _keep(
        self, entry: Entry, request: Request, claim: tuple[str, ...], outcome: Outcome
    ) -> None:
        lost = loss(self._holdings, request, claim) if claim else None
        if claim and lost is None:
            self._hold(entry, request, claim)
        elif lost is not None and lost.event is not None:
            outcome.events.append(lost.event)
        if not entry.held or _wants_more(entry, request):
            self._waiting[entry.name] = ""
            entry.kind = self._holdings.table.kind(request)

    def _allocate(self, outcomes: _Outcomes) -> None:
        """The second pass: Services without an address get one, the oldest first."""
        names = self._waiting if self._retry else self._waiting.keys() & outcomes.keys()
        self._retry = False
        search = Search(self._holdings)
        for _, entry in sorted(
            (self._entries.by_name[name].order, self._entries.by_name[name]) for name in names
        ):
            if entry.name not in outcomes and self._waits_like_others(entry, search):
                continue
            assert isinstance(entry.request, Request)
            choice = _look(search, entry, entry.request)
            if choice.addresses:
                outcome = outcomes.setdefault(entry.name, Outcome(entry))
                self._give(entry, entry.request, choice, outcome)
                if not _wants_more(entry, entry.request):
                    continue
                choice = _look(search, entry, entry.request)
            self._fail(entry, choice.reason, outcomes)

    def _waits_like_others(self, entry: Entry, search: Search) -> bool:
        """Whether another Service of its kind has got nothing either, for the reason that is known.

        Looking for an address for each of 10,000 that wait takes five times as long.
        """
        known = search.failures.get(entry.kind)
        return known is not None and not entry.held and self._waiting[entry.name] == known.reason

    def _give(self, entry: Entry, request: Request, choice: Choice, outcome: Outcome) -> None:
        event = (
            conditions.additional_event(choice.addresses[-1])
            if entry.held
            else conditions.assigned_event(choice.addresses)
        )
        outcome.events += (*conditions.deprecation_events(request), event)
        self._release(entry)
        self._hold(entry, request, choice.addresses)
        del self._waiting[entry.name]

    def _fail(self, entry: Entry, reason: str, outcomes: _Outcomes) -> None:
        known = self._waiting.get(entry.name)
        self._waiting[entry.name] = reason
        if entry.name not in outcomes and known == reason:
            return
        outcome = outcomes.setdefault(entry.name, Outcome(entry))
        outcome.reason = reason
        outcome.events.append(
            conditions.additional_failed_event(reason)
            if entry.held
            else conditions.failed_event(entry.name, reason)
        )

    def _hold(self, entry: Entry, request: Request, addresses: tuple[str, ...]) -> None:
        self._holdings.hold(entry.name, addresses, request.sharing)
        entry.held, entry.sharing = addresses, request.sharing

    def _release(self, entry: Entry) -> None:
        if entry.sharing is not None:
            self._holdings.release(entry.name, entry.held)
            entry.sharing = None

    def _forget_decisions(self, entries: Iterable[Entry]) -> None:
        """Leave it to another process, or to a later time, to decide about Services."""
        for each in entries:
            each.decision = None
            self.decisions.pop(each.name, None)

    def _with_pool(self, outcome: Outcome) -> Outcome:
        held = outcome.entry.held
        pool = self._holdings.table.pool_of(held[0]) if held else None
        outcome.pool = pool.pool.name if pool else ""
        return outcome

    def _is_in_pool(self, address: str) -> bool:
        return self._holdings.table.pool_of(address) is not None


def _rank(entry: Entry) -> int:
    if entry.promised and entry.claim == entry.held:
        return 2
    request = entry.request
    unchanged = isinstance(request, Request) and entry.sharing == request.sharing
    return 0 if unchanged and set(entry.claim) == set(entry.held) else 1


def _wants_more(entry: Entry, request: Request) -> bool:
    """Whether a Service with PreferDualStack has an address of one family only."""
    return (
        request.prefers_both and len(entry.held) == 1 and not (request.addresses or request.problem)
    )


def _look(search: Search, entry: Entry, request: Request) -> Choice:
    if entry.held:
        return search.additional(request, entry.held[0], entry.had)
    return search.choose(request, entry.had)
