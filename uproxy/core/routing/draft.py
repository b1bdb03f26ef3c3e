"""A routing table in the making: which port gets a frontend, and what the loop guard leaves out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from uproxy.core.cluster.host_addresses import HostAddresses
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.route import Frontend, Route
from uproxy.core.routing.frontend_requests import (
    Conflict,
    FrontendRequest,
    FrontendRequests,
    ranked,
    replaced,
)
from uproxy.core.routing.loops import ChangedFrontends, guarded, may_be_node_ports
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.service_routes import ServiceRoutes
from uproxy.core.routing.table import RoutingTable


class TableDraft:
    """The next table: a copy of the previous one that Services change one after the other.

    `put` each Service that was derived again, or `keep` it; then `guard`, then `finish`.
    """

    def __init__(
        self, previous: RoutingTable, options: RoutingOptions, hosts: HostAddresses
    ) -> None:
        self.touched: set[Frontend] = set()
        """Frontends whose Service or route may differ from before."""
        self._previous = previous
        self._options = options
        self._hosts = hosts
        self._routes = dict(previous.routes)
        self._services = dict(previous.services)
        self._requests = FrontendRequests(self._services)
        self._conflicts = dict(previous.conflicts)
        self._health_checks = dict(previous.health_checks)
        self._health_frontends = dict(previous.health_frontends)
        self._no_local = dict(previous.no_local_endpoints)
        self._looping = set(previous.looping)
        self._index = previous.index
        self._underived = dict(previous.underived)
        self._preserves_outside = set(previous.preserves_outside)
        self._preserves_pods = set(previous.preserves_pods)
        self._not_allowed = set(previous.not_allowed)

    def keep(self, name: ObjectName, why: str) -> None:
        """Leave a Service as it was, because deriving it has failed; `why` is the reason."""
        self._underived[name] = why

    def put(self, name: ObjectName, wanted: ServiceRoutes | None) -> None:
        """Set what a Service wants (None: it is gone), and decide again about its frontends."""
        self._underived.pop(name, None)
        old = self._services.get(name)
        if wanted == old:
            # The guard checks them nevertheless: it may be why the Service was derived again.
            self.touched.update(route.frontend for route in (old.routes if old else ()))
            return
        before = self._requests.of(name) if old is not None else {}
        if wanted is None:
            del self._services[name]
        else:
            self._services[name] = wanted = _reusing(wanted, old)
        routes = wanted.routes if wanted is not None else ()
        _put(name, self._preserves_outside, is_in=any(each.preserves_outside for each in routes))
        _put(name, self._preserves_pods, is_in=any(each.preserves_pods for each in routes))
        refused = wanted is not None and bool(wanted.not_allowed)
        _put(name, self._not_allowed, is_in=refused)
        for side in old.no_local if old is not None else ():
            self._no_local[side] -= 1
        for side in wanted.no_local if wanted is not None else ():
            self._no_local[side] += 1
        now = self._requests.of(name) if wanted is not None else {}
        affected = {name}
        for frontend in dict.fromkeys((*now, *before)):  # In the order of the Service.
            requests = self._requests_for(
                frontend, name, before.get(frontend, ()), now.get(frontend, ())
            )
            affected |= self._assign(frontend, requests)
        for each in affected:
            self._assign_health_check(each)

    def guard(self) -> None:
        """Remove backends that are frontends of ours, wherever that may have changed."""
        before = self._previous.routes
        appeared = {f for f in self.touched if f in self._routes and f not in before}
        gone = {f for f in self.touched if f in before and f not in self._routes}
        if gone:
            self.touched.update(self._freed_by(gone))
        if appeared:
            change = ChangedFrontends(appeared, self._index, self._hosts)
            self.touched.update(self._affected_by(change))
        if self._hosts.version != self._previous.hosts_version:
            self.touched.update(self._affected_by_hosts())
        for frontend in self.touched:
            self._looping.discard(frontend)
            route = self._routes.get(frontend)
            if route is not None:
                self._routes[frontend] = self._guarded(route)

    def finish(self) -> RoutingTable:
        """The table that the draft has become."""
        before = self._previous.routes
        return RoutingTable(
            routes=self._routes,
            services=self._services,
            conflicts=self._conflicts,
            health_checks=self._health_checks,
            no_local_endpoints=self._no_local,
            changed=frozenset(f for f in self.touched if self._routes.get(f) is not before.get(f)),
            options=self._options,
            health_frontends=self._health_frontends,
            looping=frozenset(self._looping),
            index=self._index,
            underived=self._underived,
            hosts_version=self._hosts.version,
            preserves_outside=frozenset(self._preserves_outside),
            preserves_pods=frozenset(self._preserves_pods),
            not_allowed=frozenset(self._not_allowed),
        )

    def _assign(self, frontend: Frontend, requests: tuple[FrontendRequest, ...]) -> set[ObjectName]:
        """Give a frontend to the first of its requests. Returns the Services whose health check
        had it, or has it now."""
        self.touched.add(frontend)
        old = self._routes.pop(frontend, None)
        affected = {self._health_frontends.pop(frontend, None)}
        self._conflicts.pop(frontend, None)
        if len(requests) > 1:
            self._conflicts[frontend] = Conflict(requests)
        if requests:
            winner = requests[0]
            if isinstance(winner.want, Route):
                self._routes[frontend] = winner.want
            else:
                self._health_frontends[frontend] = winner.service
                affected.add(winner.service)
        self._reindex(old, self._routes.get(frontend))
        return {each for each in affected if each is not None}

    def _reindex(self, old: Route | None, new: Route | None) -> None:
        """Update the index after the route of a frontend has changed."""
        if (old and old.kind) == (new and new.kind):
            return
        if self._index is self._previous.index:
            self._index = self._index.copy()
        for route, step in ((old, -1), (new, 1)):
            if route is not None:
                self._index.count(route, step)

    def _requests_for(
        self,
        frontend: Frontend,
        name: ObjectName,
        before: Sequence[FrontendRequest],
        now: Sequence[FrontendRequest],
    ) -> tuple[FrontendRequest, ...]:
        """All requests for a frontend, after those of one Service have changed.

        They are stored for contested frontends only. Any other frontend has at most one Service,
        whose requests are looked up.
        """
        conflict = self._conflicts.get(frontend)
        if conflict is not None:
            return replaced(conflict.requests, before, now)
        holder = self._holder(frontend)
        if holder is None or holder == name:
            return ranked(now)
        return ranked((*now, *self._requests.of(holder)[frontend]))

    def _holder(self, frontend: Frontend) -> ObjectName | None:
        """The Service that has a frontend, for a route or for its health check."""
        route = self._routes.get(frontend)
        if route is None:
            return self._health_frontends.get(frontend)
        return ObjectName(route.owner.namespace, route.owner.name)

    def _assign_health_check(self, name: ObjectName) -> None:
        """Serve a Service's health check if it got its port at every address, and only then."""
        wanted = self._services.get(name)
        health_check = wanted.health_check if wanted is not None else None
        if health_check is not None and all(
            self._health_frontends.get(frontend) == name for frontend in health_check.frontends
        ):
            self._health_checks[name] = health_check
        else:
            self._health_checks.pop(name, None)

    def _freed_by(self, gone: Collection[Frontend]) -> Collection[Frontend]:
        """Frontends whose route may get a backend back because frontends are gone.

        An attacker can arrange for thousands of routes that lack a backend. Guarding one of them
        takes 40 us, so only those are returned that the removed frontends may have been in.
        """
        if self._hosts.version != self._previous.hosts_version:
            return self._looping
        change = ChangedFrontends(gone, self._previous.index, self._hosts)
        holders = {self._holder(frontend) for frontend in self._looping}
        wanted = (self._services[name] for name in holders if name is not None)
        return {
            route.frontend for each in wanted if _may_affect(change, each) for route in each.routes
        }

    def _affected_by(self, appeared: ChangedFrontends) -> Iterable[Frontend]:
        """Frontends with a backend that may be one of the new frontends.

        This walks all Services. An index of all backends would cost more than it saves, since
        frontends appear seldom and 200,000 backends take about 15 ms.
        """
        for wanted in self._services.values():
            if _may_affect(appeared, wanted):
                yield from (route.frontend for route in wanted.routes)

    def _affected_by_hosts(self) -> Iterable[Frontend]:
        """Frontends with a backend that may be a NodePort, now that addresses of nodes changed."""
        for wanted in self._services.values():
            if may_be_node_ports(wanted.backend_ports, self._index):
                yield from (route.frontend for route in wanted.routes)

    def _guarded(self, route: Route) -> Route:
        """The route after the loop guard; the previous table's object if it is equal to that."""
        wanted = self._wanted(route)
        local = self._options.local_addresses
        final = guarded(wanted, self._routes, local, self._index, self._hosts)
        if final is not wanted:
            self._looping.add(route.frontend)
        before = self._previous.routes.get(route.frontend)
        return before if before is not None and before == final else final

    def _wanted(self, route: Route) -> Route:
        """The route as its Service wants it, with the backends that the loop guard removed."""
        if route.frontend not in self._previous.looping:
            return route
        requests = self._requests.of(ObjectName(route.owner.namespace, route.owner.name))
        found = (each.want for each in requests[route.frontend] if each.owner == route.owner)
        return next(want for want in found if isinstance(want, Route))


def _may_affect(change: ChangedFrontends, wanted: ServiceRoutes) -> bool:
    return change.may_affect(
        wanted.routes, has_local_backend=wanted.has_local_backend, ports=wanted.backend_ports
    )


def _put(name: ObjectName, names: set[ObjectName], *, is_in: bool) -> None:
    if is_in:
        names.add(name)
    else:
        names.discard(name)


def _reusing(wanted: ServiceRoutes, old: ServiceRoutes | None) -> ServiceRoutes:
    """The same, with the old object in place of each route that is equal to it."""
    if old is None:
        return wanted
    known = {(route.frontend, route.owner): route for route in old.routes}
    routes = []
    for route in wanted.routes:
        before = known.get((route.frontend, route.owner))
        routes.append(before if before is not None and before == route else route)
    return replace(wanted, routes=tuple(routes))
