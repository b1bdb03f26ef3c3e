"""Puts the load balancer together, as the settings want it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from uproxy.apiserver.request import ApiServer
from uproxy.config.settings import Config
from uproxy.control.load_balancer.allocation import Allocation
from uproxy.control.load_balancer.announcer import Announcer
from uproxy.control.load_balancer.announcing import (
    AnnouncerCalls,
    Peers,
    log_events,
    new_announcer,
)
from uproxy.control.load_balancer.ask import asking
from uproxy.control.load_balancer.catalog import Catalog
from uproxy.control.load_balancer.in_memory import InMemoryAllocation
from uproxy.control.load_balancer.ip_mode import IPModeChoice
from uproxy.control.load_balancer.leader import Leader
from uproxy.control.load_balancer.lease_namespace import lease_namespace
from uproxy.control.load_balancer.load_balancer import LoadBalancer
from uproxy.control.load_balancer.node_eligibility import NodeEligibility
from uproxy.control.load_balancer.objects import LoadBalancerObjects, wanted
from uproxy.control.load_balancer.part import Part, Task
from uproxy.control.load_balancer.pool_status import PoolStatusWriter
from uproxy.control.load_balancer.route_announcer import RouteAnnouncer
from uproxy.control.load_balancer.served import Served
from uproxy.control.load_balancer.status_writer import StatusWriter
from uproxy.control.load_balancer.supplies import NodeSupply, PoolSupply, Supply
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.core.allocation.decisions import ServiceEvent
from uproxy.core.cluster.load_balancer import Assigning
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.assigned import held_addresses
from uproxy.core.report.load_balancer import (
    AddressStatus,
    AnnouncingCounts,
    LoadBalancerStatus,
    PoolStatus,
    ServiceAddresses,
)
from uproxy.core.report.pool_use import pool_statuses
from uproxy.core.report.problems import Event, Reference
from uproxy.core.route import Announced

_ACTION = "AssignAddress"
_NOT_ANNOUNCED = "no L2Advertisement is for this pool, so no node announces its addresses"
SendEvents = Callable[[Iterable[Event]], None]


class Occupied(Protocol):
    """Says which addresses this machine knows to belong to a host: see Machine."""

    def __call__(self, node: str, *, own: bool) -> Mapping[str, str]: ...


def new_load_balancer(
    config: Config,
    api: ApiServer | None,
    *,
    state: ClusterState,
    supervisor: TaskSupervisor,
    send_events: SendEvents,
    find_other_proxies: Callable[[], Sequence[str]],
    served: Served,
    occupied: Occupied,
    calls: AnnouncerCalls,
) -> LoadBalancer | None:
    """None where Services get no addresses from this program. `api`: None where everything comes
    from manifests."""
    if config.lb_mode == Assigning.NEVER:
        return None
    if api is None:
        return _in_memory(config, state, supervisor, served, occupied, calls)
    namespace = lease_namespace(config.lease_namespace)
    resources = wanted(config, namespace)
    objects = LoadBalancerObjects(api, resources)
    catalog = Catalog(config.lb_pools, objects)
    ask = asking(api)
    leader = Leader(
        ask,
        namespace=namespace,
        node=config.node_name,
        nodes=lambda: state.hosts.nodes,
        changed=lambda: allocation.changed(),
    )

    def ip_mode_changed() -> None:
        writer.look_again()
        allocation.changed()

    ip_mode = IPModeChoice(config.lb_ip_mode, find_other_proxies, ip_mode_changed)
    writer = StatusWriter(
        ask,
        service=state.service,
        may_write=lambda: leader.leading,
        ip_mode=lambda: ip_mode.mode,
        send_events=lambda name, events: send_events(_events(name, events)),
    )
    pool_status = PoolStatusWriter(
        ask,
        pools=lambda: objects.pools.keys(),
        usage=lambda: allocation.usage,
        leading=lambda: leader.leading,
    )
    allocation = Allocation(
        state,
        supply_of(config, state, catalog, occupied),
        writer,
        leading=lambda: leader.leading and ip_mode.known,
        usage_changed=pool_status.usage_changed,
    )
    catalog.observe(allocation.changed)
    tasks: list[Task] = [writer]
    if resources:
        tasks.append(objects)
    routes = _route_announcers(config, state, served)
    peers = Peers(ask, namespace, objects.watch_leases_anew, lambda: leader.leading)
    announcers = tuple(
        new_announcer(config, state, catalog, served, send_events, calls, peers)
        for _ in _only_if(config, Announced.L2)
    )
    for each in announcers:
        objects.observe_leases(each)
    parts: list[Part] = [leader, ip_mode, allocation, pool_status, *routes, *announcers]

    def status() -> LoadBalancerStatus:
        services = tuple(allocation.statuses())
        return LoadBalancerStatus(
            mode=config.lb_mode,
            announce=_announce(config),
            allocating=allocation.deciding,
            allocator=leader.holder,
            trouble=leader.trouble or objects.trouble,
            pools=_pools(config, catalog, allocation, services),
            notes=_notes(announcers),
            counts=_counts(announcers),
            addresses=held_addresses(services, _announced(routes, announcers)),
            services=services,
        )

    return LoadBalancer(
        parts,
        state,
        supervisor,
        tasks=tasks,
        status=status,
        errors=lambda: catalog.errors,
        held=lambda: _held(announcers),
        set_pools=catalog.set_flags,
    )


def _in_memory(
    config: Config,
    state: ClusterState,
    supervisor: TaskSupervisor,
    served: Served,
    occupied: Occupied,
    calls: AnnouncerCalls,
) -> LoadBalancer:
    catalog = Catalog(config.lb_pools)
    memory = InMemoryAllocation(state, supply_of(config, state, catalog, occupied))
    catalog.observe(memory.changed)
    routes = _route_announcers(config, state, served)
    announcers = tuple(
        new_announcer(config, state, catalog, served, log_events, calls)
        for _ in _only_if(config, Announced.L2)
    )

    def status() -> LoadBalancerStatus:
        services = tuple(memory.allocation.statuses())
        return LoadBalancerStatus(
            mode=config.lb_mode,
            announce=_announce(config),
            allocating=True,
            pools=_pools(config, catalog, memory.allocation, services),
            notes=_notes(announcers),
            counts=_counts(announcers),
            addresses=held_addresses(services, _announced(routes, announcers)),
            services=services,
        )

    parts: list[Part] = [memory, *routes, *announcers]
    return LoadBalancer(
        parts,
        state,
        supervisor,
        status=status,
        held=lambda: _held(announcers),
        set_pools=catalog.set_flags,
        sink=memory.sink,
    )


def supply_of(config: Config, state: ClusterState, catalog: Catalog, occupied: Occupied) -> Supply:
    """Where addresses come from, as the settings want it."""
    if Assigning(config.lb_mode).from_pools:
        # Where uproxy announces nothing itself, addresses of pools may be on interfaces: a provider
        # that moves a floating address does not put it there, so its owner does.
        own = config.announce == Announced.L2
        return PoolSupply(state, catalog, occupied=lambda: occupied(config.node_name, own=own))
    return NodeSupply(state, localhost=config.lb_mode == Assigning.LOCALHOST)


def _route_announcers(
    config: Config, state: ClusterState, served: Served
) -> Sequence[RouteAnnouncer]:
    return tuple(
        RouteAnnouncer(served, NodeEligibility(state, config.node_name))
        for _ in _only_if(config, Announced.ROUTES)
    )


def _only_if(config: Config, announced: Announced) -> Iterable[None]:
    """Yields once if addresses are announced in this way, and otherwise never."""
    return (None,) if _announce(config) == announced else ()


def _announced(
    routes: Iterable[RouteAnnouncer], announcers: Iterable[Announcer]
) -> Iterable[AddressStatus]:
    yield from (status for each in routes for status in each.statuses())
    yield from (status for each in announcers for status in each.addresses())


def _notes(announcers: Iterable[Announcer]) -> tuple[str, ...]:
    return tuple(note for each in announcers for note in each.notes)


def _counts(announcers: Iterable[Announcer]) -> AnnouncingCounts:
    return next((each.counts for each in announcers), AnnouncingCounts())


def _held(announcers: Iterable[Announcer]) -> frozenset[str]:
    return frozenset(address for each in announcers for address in each.held)


def _announce(config: Config) -> str:
    return config.announce if Assigning(config.lb_mode).from_pools else ""


def _pools(
    config: Config,
    catalog: Catalog,
    allocation: Allocation,
    services: Sequence[ServiceAddresses],
) -> tuple[PoolStatus, ...]:
    flags = {each.name for each in catalog.flags}
    origins = {
        each.name: f"IPAddressPool {each.name}" for each in catalog.pools if each.name not in flags
    }
    reasons = {
        each.name: _NOT_ANNOUNCED
        for each in catalog.pools
        if _announce(config) == Announced.L2
        and not any(ad.concerns(each.name, dict(each.labels)) for ad in catalog.advertisements)
    }
    return pool_statuses(
        catalog.pools, allocation.usage, services, origins=origins, reasons=reasons
    )


def _events(name: ObjectName, events: Iterable[ServiceEvent]) -> list[Event]:
    regarding = Reference("Service", name.namespace, name.name)
    return [Event(regarding, each.type, each.reason, _ACTION, each.note) for each in events]
