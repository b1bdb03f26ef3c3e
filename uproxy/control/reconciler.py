"""The control loop: it opens, changes and closes what the routing table says.

Sources mark Services dirty. A sync derives the routes of those again, makes a plan from what is
open, carries the plan out, and records what failed. A frontend that fails is retried by itself with
back-off, which delays no other. Every sync is safe to repeat, and is repeated if it fails as a
whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Set,
)

from uproxy.control import sync_log
from uproxy.control.listeners import Listeners
from uproxy.control.service_addresses import ServiceAddresses
from uproxy.control.state_updater import StateUpdater
from uproxy.control.sync_metrics import SyncMetrics
from uproxy.control.table_builder import TableBuilder
from uproxy.control.time_slices import TimeSlices
from uproxy.core.backoff import Backoff
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.errors import unexpected
from uproxy.core.report.health import ProxyHealth
from uproxy.core.report.health_checks import with_lower_counts
from uproxy.core.report.telemetry import Telemetry
from uproxy.core.retry import RetrySchedule, earliest
from uproxy.core.route import Frontend, FrontendKind, Route
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.plan import Plan, plan
from uproxy.core.routing.reserved import ReservedAddresses
from uproxy.core.routing.retries import Failure, Retries
from uproxy.core.routing.service_routes import HealthCheck
from uproxy.core.routing.table import RoutingTable
from uproxy.net.listening import ListenError

log = logging.getLogger(__name__)

_RETRY = Backoff(initial=0.1, maximum=5.0, jitter=0.2)
"""Between attempts to open a frontend. A port that another process frees is served within seconds,
and a frontend whose address this node does not have costs one bind(2) in five seconds."""

_LIST_TIMEOUT = 5.0
"""Seconds between the first object and the first sync, unless all sources have listed earlier."""

_SILENCE = 10.0
"""Seconds without any object after which claims of an earlier process are released."""

HealthChecks = Mapping[ObjectName, HealthCheck]
ServeHealthChecks = Callable[[HealthChecks], Awaitable[Mapping[ObjectName, str]]]
"""Serves exactly these health check node ports; returns why some cannot be."""


async def _nothing(_: RoutingTable) -> None:
    pass


class Reconciler:
    """Owns the routing table, and makes listeners, claims and health checks agree with it."""

    def __init__(
        self,
        *,
        state: ClusterState,
        listeners: Listeners,
        service_addresses: ServiceAddresses,
        options: RoutingOptions,
        telemetry: Telemetry,
        health: ProxyHealth,
        serve_health_checks: ServeHealthChecks,
        min_sync_period: float,
        before_sync: Callable[[], None] = lambda: None,
        prepare: Callable[[RoutingTable], Awaitable[None]] = _nothing,
        after_sync: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_sync` may call `set_options`. `prepare` is called with a new table before
        anything is opened for it."""
        self.state = state
        self.health_check_failures: Mapping[ObjectName, str] = {}
        self.served_once = asyncio.Event()
        """Set when everything that the sources listed at first is served or has a reason; it stays
        set."""
        self.trouble = ""
        """Why the last sync failed as a whole; "": it did not."""
        self._listeners = listeners
        self._service_addresses = service_addresses
        self._options = options
        self._table_builder = TableBuilder(state, service_addresses, options, _RETRY)
        self._sync_metrics = SyncMetrics(telemetry, health)
        self.sink = StateUpdater(state, self._sync_metrics, self._queue)
        """Where the sources deliver."""
        self._serve_health_checks = serve_health_checks
        self.min_sync_period = min_sync_period
        self._before_sync = before_sync
        self._prepare = prepare
        self._after_sync = after_sync
        self._wake = asyncio.Event()
        self._pending: set[Frontend] = set()
        """Frontends whose listeners may differ from the routing table."""
        self._retries = Retries(_RETRY)
        self._health_check_retry = RetrySchedule(_RETRY)
        self._sync_retry = RetrySchedule(_RETRY)
        self._first_sync_due = False
        """Whether the first sync was due. From then on plans decide about all claims, also about
        those of an earlier process."""
        self._all_known = False
        """Whether all objects were known in the last sync."""
        self._checks: HealthChecks = {}
        """The health checks that are served now."""

    @property
    def table(self) -> RoutingTable:
        """What should be served."""
        return self._table_builder.table

    @property
    def failures(self) -> dict[Frontend, Failure]:
        """Frontends that could not be opened or resumed, and are being retried."""
        return self._retries.failures

    def set_options(self, options: RoutingOptions) -> None:
        """Facts about this machine have changed."""
        if options != self._options:
            self._options = options
            self._queue()

    def addresses_appeared(self, addresses: Collection[str]) -> None:
        """Interfaces of this machine have new addresses: frontends that failed for lack of them are
        due now."""
        if self._retries.make_due(addresses):
            self._wake.set()

    def claims_available(self) -> None:
        """Claims have become possible: frontends that need them are due now."""
        self._table_builder.look_at_all_addresses()
        self._retries.make_due()
        self._wake.set()

    async def run(self) -> None:
        """Sync whenever something has changed or is due, for ever."""
        if not self._first_sync_due:
            await self._service_addresses.release_reserved(self._reserved)
            await self._wait_until_listed()
            self._first_sync_due = True
        self._wake.set()  # An unexpected error may have ended it in the middle of a sync.
        while True:
            await self._wait_until_due()
            self._wake.clear()
            await self._attempt()
            # Changes that arrive meanwhile are taken together. The pause comes after the sync, so
            # that a change after a quiet time never waits.
            await asyncio.sleep(self.min_sync_period)

    async def _attempt(self) -> None:
        """Sync; after an unexpected error, schedule another attempt."""
        try:
            await self.sync()
        except Exception as error:
            before, self.trouble = self.trouble, unexpected(error)
            if before != self.trouble:
                log.exception("sync failed; retrying")
            self._sync_retry.failed(time.monotonic(), random.random())
        else:
            self.trouble = ""
            self._sync_retry.succeeded()

    async def sync(self) -> None:
        """Bring everything that can be brought there to its desired state, once.

        Health check node ports change in two steps (tests/faults/test_reconciler.py). Before the
        listeners change, they get the lower of the old and the new counts, so that a load balancer
        learns that endpoints are gone before its clients are refused. Afterwards they get the new
        counts: the load balancer learns of new endpoints only when its clients are served.
        """
        started = time.monotonic()
        self.sink.try_again(started)
        self._before_sync()
        self._sync_metrics.begin()
        full = self.table.options != self._options
        synced, servable = self.state.synced, self.state.servable
        self._pending |= await self._table_builder.update(self._options)
        await self._prepare(self.table)
        await self._health_checks(with_lower_counts(self._checks, self.table.health_checks))
        await self._serve(synced=synced, servable=servable)
        await self._health_checks(self.table.health_checks)
        if servable:
            self._sync_metrics.done(self.table, time.monotonic() - started, full=full)
            self.served_once.set()
        self._after_sync()

    def _queue(self) -> None:
        self._sync_metrics.queued()
        self._wake.set()

    async def _wait_until_listed(self) -> None:
        """Wait for the first object, and then for the other kinds of objects, but not for ever.

        Without their endpoints, Services would be opened, refuse clients, and then be resumed.
        """
        if not await self._wait(_SILENCE):
            # No listener serves what an earlier process has claimed, and one of these addresses may
            # be the API server's, which this node then cannot reach.
            await self._service_addresses.release_all()
            await self._wake.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LIST_TIMEOUT):
                while not self.state.servable:
                    self._wake.clear()
                    await self._wake.wait()

    async def _wait_until_due(self) -> None:
        retries = (
            self.sink.retry,
            self._table_builder.retry,
            self._health_check_retry,
            self._sync_retry,
        )
        at = earliest(self._retries.next_due(), *(each.at for each in retries))
        await self._wait(None if at is None else max(0.0, at - time.monotonic()))

    async def _wait(self, at_most: float | None) -> bool:
        """Wait until woken, or for `at_most` seconds; returns whether it was woken."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                await self._wake.wait()
        return self._wake.is_set()

    @property
    def _reserved(self) -> ReservedAddresses:
        return ReservedAddresses(self._options, self.state.hosts)

    async def _health_checks(self, wanted: HealthChecks) -> None:
        if wanted == self._checks and not self.health_check_failures:
            return
        try:
            failures = dict(await self._serve_health_checks(wanted))
        except Exception as error:
            log.exception("cannot serve health check node ports; retrying")
            failures = dict.fromkeys(wanted, unexpected(error))
        sync_log.log_health_checks(self.health_check_failures, failures)
        self._checks, self.health_check_failures = wanted, failures
        if failures:
            self._health_check_retry.failed(time.monotonic(), random.random())
        else:
            self._health_check_retry.succeeded()

    async def _serve(self, *, synced: bool, servable: bool) -> None:
        if servable and not self._all_known:
            self._retries.make_due()
        self._all_known = servable
        now = time.monotonic()
        looked_at, blocked = self._pending | self._retries.due(now), self._retries.not_due(now)
        steps = plan(
            self.table.routes,
            self._listeners.actual(looked_at),
            frontends=looked_at,
            synced=synced,
            blocked=blocked,
            claimed=self._service_addresses.held,
            vips=self._service_addresses.needed,
            reserved=self._reserved,
        )
        failed = await self._apply(steps)
        self._record(steps, failed, looked_at - blocked, now)
        # What may not be taken away before the sources have listed has to be looked at again.
        self._pending = set() if synced else self._pending - failed.keys()

    async def _apply(self, steps: Plan) -> dict[Frontend, Failure]:
        """Carry a plan out, in the order that Plan explains; returns what could not be opened or
        resumed.

        Listeners are closed before their addresses are released, and opened after their addresses
        are claimed: bind(2) fails on an address that is not local.
        """
        failed: dict[Frontend, Failure] = {}
        slices = TimeSlices()
        for frontend in steps.close:
            self._listeners.close(frontend)
            await slices.pause_if_due()
        await self._service_addresses.release(steps.release)
        unclaimed = await self._service_addresses.claim(
            steps.claim, self.table.routes, all_known=self._all_known
        )
        for act, routes in (
            (self._listeners.update, (*steps.pause, *steps.update, *steps.resume)),
            (self._listeners.open, steps.open),
        ):
            for route in routes:
                try:
                    act(route)
                except ListenError as error:
                    failed[route.frontend] = self._failure(route, error, unclaimed)
                except Exception as error:
                    log.exception("%s: unexpected error; retrying", route.frontend)
                    failed[route.frontend] = Failure(unexpected(error), absent=False)
                await slices.pause_if_due()
        return self._out_of_reach(unclaimed) | failed

    def _out_of_reach(self, unclaimed: Mapping[str, str]) -> dict[Frontend, Failure]:
        """Frontends at addresses that could not be claimed. They may be open nevertheless, if an
        interface had the address until now."""
        return {
            frontend: Failure(f"address {address} is not on this node, and {why}", absent=True)
            for address, why in unclaimed.items()
            for frontend in self._service_addresses.needed.get(address, ())
            if frontend in self.table.routes
        }

    def _failure(self, route: Route, error: ListenError, unclaimed: Mapping[str, str]) -> Failure:
        address = route.frontend.address
        reason = unclaimed.get(address, self._service_addresses.reason)
        if not error.absent or route.kind is FrontendKind.NODE_PORT or not reason:
            return Failure(str(error), error.absent)
        return Failure(f"{error}, and {reason}", absent=True)

    def _record(
        self,
        steps: Plan,
        failed: Mapping[Frontend, Failure],
        attempted: Set[Frontend],
        now: float,
    ) -> None:
        """Record and log what has failed. `attempted`: all frontends that were to be brought to
        their desired state."""
        news = self._retries.failed(failed, now, random.random)
        recovered = self._retries.opened(attempted - failed.keys())
        self._retries.keep(self.table.routes)
        sync_log.log_failures(news, self.table.routes)
        sync_log.log_recovered(recovered)
        sync_log.log_plan(steps.without(failed.keys() | set(recovered)))
