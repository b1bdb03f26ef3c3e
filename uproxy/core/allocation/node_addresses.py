"""Addresses of nodes for Services, where there are no others: --lb node and --lb localhost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from uproxy.core.allocation import conditions
from uproxy.core.allocation.decisions import Decision
from uproxy.core.allocation.entries import Entries, Entry
from uproxy.core.allocation.outcomes import Outcome, conclude
from uproxy.core.allocation.requests import Request
from uproxy.core.cluster.objects import Node, ObjectName, Service
from uproxy.core.ip import FAMILIES, Family, family_of, parse_ip

EXCLUDED: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Label of Nodes whose addresses are not for load balancers."""
_LOCALHOST: Final = ("127.0.0.1", "::1")

_Port = tuple[Family, str, int]
"""Family, protocol and port: what one Service has on all nodes. The nodes of a Service with policy
Local change with its endpoints, and a conflict must not come and go with them."""


@dataclass(frozen=True, slots=True)
class _NodeFacts:
    """What a Node says that matters here."""

    addresses: tuple[str, ...]
    """Of each family its external ones, or else its internal ones."""
    excluded: bool
    available: bool


class NodeAllocator:
    """Gives Services the addresses of nodes, or of this machine alone.

    It is used like `Allocator`. A Service has all of its ports for itself, since the addresses are
    the same for every Service.
    """

    def __init__(self, *, localhost: bool = False) -> None:
        self._localhost = localhost
        self._nodes: dict[str, _NodeFacts] = {}
        self._known = frozenset[str](_LOCALHOST if localhost else ())
        """Every address that may be assigned."""
        self._endpoint_nodes: dict[ObjectName, frozenset[str]] = {}
        self._entries = Entries()
        self._ports: dict[_Port, ObjectName] = {}
        """The Service that has each."""
        self._own_ports: dict[ObjectName, frozenset[_Port]] = {}
        self._refused: set[ObjectName] = set()
        """The Services whose ports others have."""
        self._freed = False
        self._complete = False
        self.decisions: dict[ObjectName, Decision] = {}
        """What holds for each Service that is, or was, for uproxy. Without Events."""

    def put(self, service: Service) -> None:
        """Take note of a Service, as it is in the cluster now."""
        self._entries.put(service)

    def remove(self, name: ObjectName) -> None:
        """Forget a Service that has been deleted."""
        if self._entries.pop(name) is not None:
            self._release(name)
            self._refused.discard(name)
            self.decisions.pop(name, None)

    def set_nodes(self, nodes: Iterable[Node]) -> None:
        """Set all Nodes."""
        facts = {each.metadata.name: _facts(each) for each in nodes}
        if facts != self._nodes and not self._localhost:
            self._nodes = dict(sorted(facts.items()))
            self._known = frozenset(each for node in facts.values() for each in node.addresses)
            self._entries.mark_all()

    def set_endpoint_nodes(self, name: ObjectName, nodes: frozenset[str]) -> None:
        """Set the nodes that have a ready endpoint of a Service."""
        if nodes != self._endpoint_nodes.get(name, frozenset()):
            self._endpoint_nodes.pop(name, None)
            if nodes:
                self._endpoint_nodes[name] = nodes
            if name in self._entries.by_name:
                self._entries.dirty.add(name)

    def converge(self, *, complete: bool) -> Sequence[Decision]:
        """As `Allocator.converge`, but nothing is decided before all is known: while Nodes are
        missing, so are their addresses."""
        if complete and not self._complete:
            self._ports.clear()
            self._own_ports.clear()
            self._refused.clear()
            self._entries.mark_all()
        self._complete = complete
        if not complete:
            return []
        dirty = self._entries.take_dirty()
        # Those that have their ports keep them, then come those whose status says that they have.
        outcomes = {entry.name: self._decide(entry) for entry in self._ranked(dirty)}
        if self._freed:
            self._freed = False
            refused = [self._entries.by_name[name] for name in self._refused]
            outcomes |= {entry.name: self._decide(entry) for entry in self._ranked(refused)}
        return list(conclude(outcomes.values(), self.decisions))

    def _ranked(self, entries: Iterable[Entry]) -> list[Entry]:
        def rank(entry: Entry) -> tuple[bool, bool, tuple[str, ...]]:
            return entry.name not in self._own_ports, not entry.status, entry.order

        return sorted(entries, key=rank)

    def _decide(self, entry: Entry) -> Outcome:
        outcome, before = Outcome(entry), entry.held
        entry.held = ()
        request = entry.request
        if request is not None:
            outcome.foreign = entry.foreign(self._known.__contains__)
        if isinstance(request, Request) and not outcome.foreign:
            found, outcome.reason = self._addresses(request)
            # The order of a status means nothing, so it is not written again for that.
            entry.held = entry.status if set(found) == set(entry.status) else found
            if outcome.reason:
                outcome.events.append(conditions.failed_event(entry.name, outcome.reason))
            elif not before and entry.held != entry.status:
                outcome.events.append(conditions.assigned_event(entry.held))
        else:
            self._release(entry.name)
        return outcome

    def _addresses(self, request: Request) -> tuple[tuple[str, ...], str]:
        """The addresses of a Service, or the reason why it has none."""
        reason = request.problem if not request.families else self._claim(request)
        if reason:
            return (), reason
        nodes = self._endpoint_nodes.get(request.name, frozenset())
        if request.sharing.local and not nodes and not self._localhost:
            return (), "no node has a ready endpoint, which externalTrafficPolicy Local needs"
        found = list(self._eligible(nodes if request.sharing.local else None))
        addresses = tuple(
            each for family in request.families for each in found if family_of(each) == family
        )
        missing = set(request.families).difference(map(family_of, addresses))
        if missing and not (request.prefers_both and addresses):
            return (), f"no eligible node has an address of {' and '.join(sorted(missing))}"
        return addresses, ""

    def _claim(self, request: Request) -> str:
        """Take the ports of a Service. Returns why that is impossible, or ""."""
        name = request.name
        wanted = frozenset(
            (family, *port) for family in request.families for port in request.sharing.ports
        )
        clash = min((each for each in wanted if self._ports.get(each, name) != name), default=None)
        self._release(name, but=frozenset() if clash else wanted)
        if clash is not None:
            self._refused.add(name)
            _, protocol, port = clash
            where = "127.0.0.1" if self._localhost else "the addresses of nodes"
            return (
                f"port {protocol}/{port} is already in use on {where} by {self._ports[clash]}; "
                "give one of them another port"
            )
        self._own_ports[name] = wanted
        self._ports.update(dict.fromkeys(wanted, name))
        return ""

    def _release(self, name: ObjectName, but: frozenset[_Port] = frozenset()) -> None:
        self._refused.discard(name)
        for port in self._own_ports.pop(name, frozenset()) - but:
            del self._ports[port]
            self._freed = True

    def _eligible(self, only: frozenset[str] | None) -> Iterator[str]:
        """The addresses of eligible nodes. If the label excludes all, it is ignored."""
        if self._localhost:
            yield from _LOCALHOST
        nodes = [
            facts
            for name, facts in self._nodes.items()
            if facts.available and (only is None or name in only)
        ]
        for facts in [each for each in nodes if not each.excluded] or nodes:
            yield from facts.addresses


def _facts(node: Node) -> _NodeFacts:
    found = [(each.type, parse_ip(each.address)) for each in node.status.addresses or ()]
    addresses = list[str]()
    for family in FAMILIES:
        own = [(kind, each) for kind, each in found if each and family_of(each) == family]
        external = [each for kind, each in own if kind == "ExternalIP"]
        addresses += external or (each for kind, each in own if kind == "InternalIP")
    return _NodeFacts(
        addresses=tuple(dict.fromkeys(addresses)),
        excluded=EXCLUDED in (node.metadata.labels or {}),
        available=not node.network_unavailable and node.metadata.deletion_timestamp is None,
    )
