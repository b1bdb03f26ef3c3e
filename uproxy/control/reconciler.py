"""The loop that makes what is open follow what is wanted.

Sources mark Services dirty; a step derives those again, plans from what is open, carries the plan
out, and remembers what failed. A frontend that fails is retried by itself with back-off, and the
others do not notice. Every step is safe to repeat, and is repeated where it fails as a whole.
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
"""Between attempts at a frontend that cannot be opened: a port that is freed is ours again within
seconds, and an address that is not here costs one bind in five seconds."""

_TOGETHER = 5.0
"""Seconds between the first object and the first step, unless all sources have listed earlier."""

_ALONE = 10.0
"""Seconds without a word about any object before claims of an earlier process are released."""

_SLICE = 0.005
"""Seconds of opening and closing sockets before the event loop gets its turn."""

HealthChecks = Mapping[ObjectName, HealthCheck]
ServeHealthChecks = Callable[[HealthChecks], Awaitable[Mapping[ObjectName, str]]]
"""Serves exactly these health check node ports; returns why some cannot be."""


async def _nothing(_: RoutingTable) -> None:
    pass


class Reconciler:
    """Owns the routing table and keeps the listeners in step with it."""

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
        prepare: Callable[[RoutingTable], Awaitable[None]] = _nothing,
        after_sync: Callable[[], None] = lambda: None,
    ) -> None:
        """`prepare` is called before what a new table wants is opened."""
        self.state = state
        self.health_check_failures: Mapping[ObjectName, str] = {}
        self.served_once = asyncio.Event()
        """Set for good when all that the sources listed at first is served, or has a reason."""
        self.trouble = ""
        """Why the last step has failed as a whole; "": it has not."""
        self._listeners = listeners
        self._service_addresses = service_addresses
        self._options = options
        self._table_builder = TableBuilder(state, service_addresses, options, _RETRY)
        self._sync_metrics = SyncMetrics(telemetry, health)
        self.sink = StateUpdater(state, self._sync_metrics, self._queue)
        """Where the sources deliver."""
        self._serve_health_checks = serve_health_checks
        self._min_sync_period = min_sync_period
        self._prepare = prepare
        self._after_sync = after_sync
        self._wake = asyncio.Event()
        self._pending: set[Frontend] = set()
        """Frontends that may differ from what is wanted."""
        self._retries = Retries(_RETRY)
        self._checking = RetrySchedule(_RETRY)
        self._steps = RetrySchedule(_RETRY)
        self._begun = False
        """Whether a first step was due: what is claimed is no longer that of an earlier process."""
        self._all_known = False
        """Whether all objects were known in the last step."""
        self._checks: HealthChecks = {}
        """Health checks as they are served now."""

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
        """Interfaces of this machine have new addresses: what waited for them is due now."""
        if self._retries.make_due(addresses):
            self._wake.set()

    def claims_available(self) -> None:
        """Addresses can be claimed that could not before."""
        self._table_builder.look_at_all_addresses()
        self._retries.make_due()
        self._wake.set()

    async def run(self) -> None:
        """Reconcile for ever."""
        if not self._begun:
            await self._service_addresses.release_reserved(self._reserved)
            await self._until_listed()
            self._begun = True
        self._wake.set()  # It may begin again, after it has ended in the middle of something.
        while True:
            await self._until_woken()
            self._wake.clear()
            await self._attempt()
            # What comes meanwhile is taken together; a change after a quiet time never waits.
            await asyncio.sleep(self._min_sync_period)

    async def _attempt(self) -> None:
        """A step; after an unexpected error it is made again."""
        try:
            await self.sync()
        except Exception as error:
            before, self.trouble = self.trouble, unexpected(error)
            if before != self.trouble:
                log.exception("changes could not be carried out as a whole; trying again")
            self._steps.failed(time.monotonic(), random.random())
        else:
            self.trouble = ""
            self._steps.succeeded()

    async def sync(self) -> None:
        """Bring everything that can be brought to its desired state there, once."""
        started = time.monotonic()
        self.sink.retry(started)
        self._sync_metrics.begin()
        full = self.table.options != self._options
        synced, servable = self.state.synced, self.state.servable
        self._pending |= await self._table_builder.update(self._options)
        await self._prepare(self.table)
        # Load balancers learn that endpoints are gone before clients are refused, and that there
        # are some after clients are served.
        await self._health_checks(with_lower_counts(self._checks, self.table.health_checks))
        await self._carry_out(synced=synced, servable=servable)
        await self._health_checks(self.table.health_checks)
        if servable:
            self._sync_metrics.done(self.table, time.monotonic() - started, full=full)
            self.served_once.set()
        self._after_sync()

    def _queue(self) -> None:
        self._sync_metrics.queued()
        self._wake.set()

    async def _until_listed(self) -> None:
        """Wait for the other kinds of objects when the first one is there, but not for ever.

        Services without their endpoints would be opened, refuse clients, and be resumed.
        """
        if not await self._woken(_ALONE):
            # What an earlier process has claimed leads to nobody. It might be the way to the
            # objects.
            await self._service_addresses.release_all()
            await self._wake.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TOGETHER):
                while not self.state.servable:
                    self._wake.clear()
                    await self._wake.wait()

    async def _until_woken(self) -> None:
        again = (self.sink.again, self._table_builder.again, self._checking, self._steps)
        at = earliest(self._retries.next_due(), *(each.at for each in again))
        await self._woken(None if at is None else max(0.0, at - time.monotonic()))

    async def _woken(self, at_most: float | None) -> bool:
        """Wait until there is something to do, or so many seconds; whether there is."""
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
            log.exception("health check node ports cannot be served")
            failures = dict.fromkeys(wanted, unexpected(error))
        sync_log.log_health_checks(self.health_check_failures, failures)
        self._checks, self.health_check_failures = wanted, failures
        if failures:
            self._checking.failed(time.monotonic(), random.random())
        else:
            self._checking.succeeded()

    async def _carry_out(self, *, synced: bool, servable: bool) -> None:
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
        self._remember(steps, failed, looked_at - blocked, now)
        # What may not be taken away before the sources have listed has to be looked at again.
        self._pending = set() if synced else self._pending - failed.keys()

    async def _apply(self, steps: Plan) -> dict[Frontend, Failure]:
        """Carry a plan out; returns what could not be opened or resumed."""
        failed: dict[Frontend, Failure] = {}
        turn = _Turn()
        for frontend in steps.close:
            self._listeners.close(frontend)
            await turn.over()
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
                    log.exception("unexpected error at %s", route.frontend)
                    failed[route.frontend] = Failure(unexpected(error), absent=False)
                await turn.over()
        return self._out_of_reach(unclaimed) | failed

    def _out_of_reach(self, unclaimed: Mapping[str, str]) -> dict[Frontend, Failure]:
        """Frontends at addresses that could not be claimed. They may be open all the same, if an
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

    def _remember(
        self,
        steps: Plan,
        failed: Mapping[Frontend, Failure],
        attempted: Set[Frontend],
        now: float,
    ) -> None:
        """`attempted`: what was brought to its desired state, unless it has failed."""
        news = self._retries.failed(failed, now, random.random)
        recovered = self._retries.opened(attempted - failed.keys())
        self._retries.keep(self.table.routes)
        sync_log.log_failures(news, self.table.routes)
        sync_log.log_recovered(recovered)
        sync_log.log_plan(steps.without(failed.keys() | set(recovered)))


class _Turn:
    """Gives the event loop its turn now and then in a long run of short steps."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def over(self) -> None:
        if time.monotonic() - self._began > _SLICE:
            await asyncio.sleep(0)
            self._began = time.monotonic()
