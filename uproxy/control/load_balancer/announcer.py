"""Announces addresses on the node's own network segments, by turns with the other nodes.

Which node announces what is decided by `Election`. This is the loop around it: it brings together
what the cluster, the wire and this machine say, and carries out what is decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from uproxy.control.load_balancer.announcing_status import (
    Found,
    address_statuses,
    announced_services,
)
from uproxy.control.load_balancer.interface_addresses import InterfaceAddresses
from uproxy.control.load_balancer.l2_statuses import L2Statuses
from uproxy.control.load_balancer.lease_echo import LeaseEcho
from uproxy.control.load_balancer.local_segments import LocalSegments, SegmentCalls
from uproxy.control.load_balancer.own_lease import Outcome, OwnLease
from uproxy.control.load_balancer.refusals import ACTION, Refusals
from uproxy.control.load_balancer.tally import Tally
from uproxy.control.load_balancer.wanted_addresses import WantedAddresses
from uproxy.core.announcing.election import Election
from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.announcing.pace import HEARTBEAT
from uproxy.core.announcing.step import AddressState, OwnState, Step
from uproxy.core.announcing.view import Announceable
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.report.load_balancer import AddressStatus, AnnouncingCounts
from uproxy.core.report.problems import Event, Reference
from uproxy.host.namespace_lock import ANNOUNCEMENTS, take_lock
from uproxy.host.threads import run_to_completion
from uproxy.host.wire import OnHeard, Wire

log = logging.getLogger(__name__)

_AT_LEAST: Final = 0.01
"""Seconds between two turns: a rollout changes many objects at once."""
_LOCK: Final = 1.0
"""Seconds after which the lock is tried again, if another process has it."""
_SUPERSEDED: Final = (
    "another uproxy announces addresses in the name of node %s; give each node a name of its own "
    "(--hostname-override)"
)


def _boot_time() -> float:
    """Seconds, also those in which the machine was suspended: others have not waited for it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ServingFacts(NamedTuple):
    """What the rest of the program knows."""

    known: Callable[[], bool]
    """Whether all objects on which announcing depends have been listed."""
    served_once: Callable[[], bool]
    """Whether the frontends that were known first have been opened."""
    served: Callable[[Announceable], bool]
    """Whether the frontends of an address are open here."""
    leading: Callable[[], bool]
    """Whether this process speaks for the whole cluster."""


@dataclass(frozen=True, kw_only=True)
class AnnouncingCalls:
    """What announcing needs of this machine, so that tests can put a model in its place."""

    segments: SegmentCalls = field(default_factory=SegmentCalls)
    wire: Callable[[OnHeard], Wire] = Wire
    take_lock: Callable[[int], socket.socket] = take_lock
    clock: Callable[[], float] = _boot_time


_LINUX: Final = AnnouncingCalls()


class Announcer:
    """A part of the load balancer (see Part)."""

    name = "announcer"

    def __init__(
        self,
        election: Election,
        wanted: WantedAddresses,
        addresses: InterfaceAddresses,
        *,
        lease: OwnLease | None,
        statuses: L2Statuses | None,
        facts: ServingFacts,
        send: Callable[[Iterable[Event]], None],
        watch_anew: Callable[[], None],
        calls: AnnouncingCalls = _LINUX,
    ) -> None:
        """`lease`: None where there is no API server, and so no other node. `send` sends Events.
        `watch_anew` begins the watch of Leases again."""
        self._refused = ""
        """Why addresses cannot be put on interfaces here; "": they can be."""
        self._superseded = False
        self._election = election
        self._wanted = wanted
        self._addresses = addresses
        self._lease = lease
        self._statuses = statuses
        self._facts = facts
        self._send = send
        self._refusals = Refusals()
        self._echo = LeaseEcho(election.node, watch_anew)
        self._calls = calls
        self._wire = calls.wire(self._heard)
        self._lock: socket.socket | None = None
        self._locked_out = True
        """Whether the addresses on interfaces are another process's, or may be."""
        self._segments = LocalSegments(calls.segments)
        self._own = OwnState()
        self._draining = False
        self._released = asyncio.Event()
        self._writing = False
        self._states: Mapping[str, AddressState] = {}
        self._followed: tuple[object, object] = (None, None)
        self._wake = asyncio.Event()
        self._tally = Tally()

    def object_changed(self, kind: type[Object], name: ObjectName) -> None:
        """See Part."""
        self._wanted.object_changed(kind, name)
        self._wake.set()

    def changed(self) -> None:
        """See Part."""
        self._wake.set()

    def listed(self, leases: Iterable[AnnouncerLease]) -> None:
        """All Leases of announcing nodes."""
        self._election.listed(leases, self._calls.clock())
        self._wake.set()

    def saw(self, lease: AnnouncerLease) -> None:
        """A Lease as a watch has delivered it."""
        self._echo.saw(lease)
        self._election.saw(lease, self._calls.clock())
        self._wake.set()

    def gone(self, node: str) -> None:
        """The Lease of a node was deleted."""
        self._election.gone(node, self._calls.clock())
        self._wake.set()

    def _heard(self, address: str, mac: str, interface: str) -> None:
        log.debug("heard on %s that %s is at %s", interface, address, mac)
        self._tally.heard(address)
        self._election.heard(address, mac, self._calls.clock())
        self._wake.set()

    async def run(self) -> None:
        """See Part."""
        await self._take_lock()
        self._locked_out = False
        self._followed = (None, None)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._wire)
            if self._wire.reason:
                log.warning("%s; the kernel still answers for them", self._wire.reason)
            await stack.enter_async_context(self._segments)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            tasks.create_task(self._segments.follow(self._wake.set), name="interfaces")
            if self._statuses is not None:
                tasks.create_task(self._statuses.run(), name="ServiceL2Status objects")
            await self._turns(tasks)

    async def release(self) -> None:
        """See Part. The addresses go to another node; their flows end there with a reset at once,
        as a connection cannot move with its address, so clients connect again without delay."""
        self._draining = True
        self._wake.set()
        if self._locked_out:
            self._released.set()
            return
        try:
            await self._released.wait()
            if self._statuses is not None:
                await self._statuses.delete_all()
        finally:
            self._addresses.become({}, self._calls.clock())
            self._released.set()
            if self._lock is not None:
                self._lock.close()

    async def _take_lock(self) -> None:
        """Wait until no other process of this node announces. Two would take each other's addresses
        off the interfaces."""
        while self._lock is None:
            try:
                self._lock = await run_to_completion(self._calls.take_lock, ANNOUNCEMENTS)
                self._refuse("")
            except PermissionError:
                self._refuse("addresses cannot be put on interfaces without CAP_NET_ADMIN")
                return
            except OSError as error:
                self._refuse(str(error.strerror))
                await asyncio.sleep(_LOCK)

    async def _turns(self, tasks: asyncio.TaskGroup) -> None:
        while not self._released.is_set():
            self._wake.clear()
            wake_at = self._turn(tasks)
            await asyncio.sleep(_AT_LEAST)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wake_at - self._calls.clock())):
                    await self._wake.wait()

    def _turn(self, tasks: asyncio.TaskGroup) -> float:
        """Decide, and do what was decided; returns when to do so again at the latest."""
        now = self._calls.clock()
        self._echo.check(now)
        wanted = self._wanted.current() if self._facts.known() else None
        step = self._election.decide(self._own_state(wanted or {}), wanted, now)
        self._carry_out(step, now, tasks)
        self._states = step.states
        if wanted is not None:
            self._tell(wanted)
        if self._draining and not (self._writing or self._addresses.held):
            self._released.set()
        return min(step.wake_at, now + HEARTBEAT)

    def _tell(self, wanted: Mapping[str, Announceable]) -> None:
        if self._statuses is not None:
            self._statuses.set(announced_services(wanted, self._addresses.held))
        if events := self._refusals.new(wanted, leading=self._facts.leading()):
            self._send(events)

    def _own_state(self, wanted: Mapping[str, Announceable]) -> OwnState:
        held = self._addresses.held
        if self._facts.served_once():
            unable = {address for address, each in wanted.items() if not self._facts.served(each)}
        else:
            # An earlier process served what it announced, and this one will in a moment.
            unable = wanted.keys() - held.keys()
        own = OwnState(
            interfaces={} if self._refused else self._segments.interfaces,
            unable=frozenset(unable | self._addresses.failures.keys()),
            draining=self._draining,
            hears=self._wire.possible,
        )
        if own != self._own:
            self._own = own
        return self._own

    def _carry_out(self, step: Step, now: float, tasks: asyncio.TaskGroup) -> None:
        self._note_superseded(step.superseded)
        self._addresses.become(step.announce, now)
        self._addresses.renew(now)
        held = self._addresses.held
        self._tally.holds(held.keys())
        if self._followed != (held, self._segments.found):
            self._followed = (held, self._segments.found)
            self._wire.follow(held, self._segments.found)
        if step.lease is not None and self._lease is not None:
            self._writing = True
            tasks.create_task(self._write(self._lease, step.lease), name="write the Lease")
        for address in step.gratuitous:
            if address in held and self._wire.announce(address, held[address]):
                self._tally.announced(address)
        for address, interface in step.probe.items():
            tasks.create_task(self._probe(address, interface), name=f"probe {address}")
        if step.events:
            self._send(
                Event(Reference("Service", *name), each.type, each.reason, ACTION, each.note)
                for each in step.events
                for name in each.services
            )

    async def _write(self, lease: OwnLease, content: AnnouncerLease) -> None:
        outcome = Outcome()
        try:
            outcome = await lease.write(content)
        finally:
            self._writing = False
            now = self._calls.clock()
            if outcome.version:
                self._echo.wrote(outcome.version, now)
                self._election.wrote(outcome.version, now)
            elif outcome.conflict:
                self._election.write_conflicted(outcome.current, now)
            else:
                self._tally.write_failed()
                self._election.write_failed(now)
            self._wake.set()

    async def _probe(self, address: str, interface: str) -> None:
        mac = None
        try:
            mac = await self._wire.probe(address, interface)
        except OSError as error:
            log.debug("cannot ask who has %s: %s", address, error)
        finally:
            self._election.probed(address, mac, self._calls.clock())
            self._wake.set()

    def _refuse(self, reason: str) -> None:
        if reason and reason != self._refused:
            log.warning("this node announces no addresses: %s", reason)
        self._refused = reason

    def _note_superseded(self, superseded: bool) -> None:
        if superseded and not self._superseded:
            log.error(_SUPERSEDED, self._election.node)
        self._superseded = superseded

    @property
    def held(self) -> Set[str]:
        """The addresses that this node announces now."""
        return self._addresses.held.keys()

    @property
    def counts(self) -> AnnouncingCounts:
        """What has happened so far."""
        return self._tally.counts

    def addresses(self) -> Sequence[AddressStatus]:
        """Who announces which address, and why."""
        found = Found(self._states, self._addresses.held, self._addresses.failures)
        return address_statuses(self._wanted.current(), found, self._calls.clock(), time.time())

    @property
    def notes(self) -> Sequence[str]:
        """What people should know, a sentence each."""
        lease = self._lease.trouble if self._lease is not None else ""
        found = (
            self._refused and f"this node announces no addresses: {self._refused}",
            self._superseded and _SUPERSEDED % self._election.node,
            lease and f"cannot write the Lease of this node: {lease}",
            self._wire.reason,
        )
        return [each for each in found if each]
