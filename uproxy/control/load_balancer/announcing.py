"""Puts an announcer together, as the settings want it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from uproxy.config.settings import Config
from uproxy.control.load_balancer.announcer import Announcer, AnnouncingCalls, ServingFacts
from uproxy.control.load_balancer.ask import Ask
from uproxy.control.load_balancer.catalog import Catalog
from uproxy.control.load_balancer.interface_addresses import AddressCalls, InterfaceAddresses
from uproxy.control.load_balancer.l2_statuses import L2Statuses
from uproxy.control.load_balancer.own_lease import OwnLease
from uproxy.control.load_balancer.served import Served
from uproxy.control.load_balancer.wanted_addresses import WantedAddresses
from uproxy.core.announcing.election import Election
from uproxy.core.announcing.view import Announceable
from uproxy.core.cluster.load_balancer import Assigning
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.problems import Event
from uproxy.core.route import Frontend

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AnnouncerCalls:
    """All that announcing asks of the kernel."""

    addresses: AddressCalls = field(default_factory=AddressCalls)
    others: AnnouncingCalls = field(default_factory=AnnouncingCalls)


class Peers(NamedTuple):
    """What there is besides this node, in a cluster."""

    ask: Ask
    lease_namespace: str
    watch_anew: Callable[[], None]
    """Begins the watch of Leases again."""
    leading: Callable[[], bool]
    """Whether this process speaks for the whole cluster."""


def new_announcer(
    config: Config,
    state: ClusterState,
    catalog: Catalog,
    served: Served,
    send: Callable[[Iterable[Event]], None],
    calls: AnnouncerCalls,
    peers: Peers | None = None,
) -> Announcer:
    """`send` sends Events. `peers`: None where there is no API server, and so no other node."""
    node = config.node_name
    addresses = InterfaceAddresses(calls.addresses)
    addresses.take_over()
    election = Election(
        node,
        f"{node}_{random.getrandbits(64):016x}",
        held_over=addresses.held,
        alone=peers is None,
        repeat=config.announce_repeat,
    )
    announcer = Announcer(
        election,
        WantedAddresses(
            state,
            lambda: catalog.pools,
            lambda: catalog.advertisements,
            own_node=node if peers is None else "",
        ),
        addresses,
        lease=None if peers is None else _lease(state, node, peers),
        statuses=None if peers is None else _statuses(config, state, peers),
        facts=ServingFacts(
            known=lambda: state.servable and catalog.complete,
            served_once=served.all_known,
            served=lambda each: is_served(each, state, served),
            leading=(lambda: True) if peers is None else peers.leading,
        ),
        send=send,
        watch_anew=(lambda: None) if peers is None else peers.watch_anew,
        calls=calls.others,
    )
    catalog.observe(announcer.changed)
    return announcer


def log_events(events: Iterable[Event]) -> None:
    """Say what would be an Event, where there is no cluster to send it to."""
    for each in events:
        level = logging.WARNING if each.type == "Warning" else logging.INFO
        log.log(level, "Service %s/%s: %s", *each.regarding[1:], each.note)


def _lease(state: ClusterState, node: str, peers: Peers) -> OwnLease:
    return OwnLease(
        peers.ask,
        node=node,
        namespace=peers.lease_namespace,
        node_uid=lambda: _node_uid(state, node),
    )


def _statuses(config: Config, state: ClusterState, peers: Peers) -> L2Statuses | None:
    if config.lb_mode != Assigning.METALLB:
        return None
    node = config.node_name
    return L2Statuses(peers.ask, node, config.metallb_namespace, lambda: _node_uid(state, node))


def is_served(each: Announceable, state: ClusterState, served: Served) -> bool:
    """Whether an address is served here. A UDP frontend without a backend is closed, and is no
    reason why the address could not be here; one that could not be opened is."""
    found = [state.service(name) for name in each.services]
    frontends = [
        Frontend(port.protocol, each.address, port.port)
        for service in found
        if service is not None
        for port in service.ports
    ]
    return any(map(served.is_open, frontends)) and not any(map(served.has_failed, frontends))


def _node_uid(state: ClusterState, node: str) -> str:
    found = state.node_object(node)
    return found.metadata.uid if found is not None else ""
