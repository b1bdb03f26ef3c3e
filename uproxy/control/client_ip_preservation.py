"""Shows clients' addresses to backends as long as some Service asks for that.

The kernel needs rules for it. They are installed when the first Service asks for it (as far as it
asks for those of pods, only on a node that has pods), and repaired if another program removes
them. They are removed when no Service asks for it any more and its flows
have ended, or when this process ends. The rules that a killed process leaves behind do no harm: its
successor takes them over, or removes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, Self

from uproxy.control.astray_ports import AstrayPorts
from uproxy.control.bridge_diversion import BridgeCalls, BridgeDiversion
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.errors import unexpected
from uproxy.core.ip import Family
from uproxy.core.report.client_addresses import ClientAddresses
from uproxy.core.route import ServicePortName
from uproxy.core.routing.table import RoutingTable
from uproxy.host.client_addresses import (
    ClientAddressRules,
    remove_client_address_rules,
    remove_rules,
)
from uproxy.host.commands import explain, is_temporary
from uproxy.host.namespace_lock import CLIENT_ADDRESSES, Locked, take_lock
from uproxy.host.pod_networks import PodNetworks
from uproxy.host.threads import run_to_completion
from uproxy.net.messages import Report, Witness

log = logging.getLogger(__name__)

_PERIOD: Final = 10.0
"""Seconds between two checks of whether the rules are still there: `nft flush ruleset` is
common."""
_SETTLED: Final = 3.0
"""Seconds after a repair within which workers may report what went astray before it: a probe takes
1.25 s, and the next report may come 0.5 s later."""
_TIMEOUT: Final = 5.0
"""Seconds that serving waits for the rules; to install them usually takes 0.1 s."""
_SWITCHED_OFF: Final = "switched off by --preserve-client-ip never"
_LOCKED: Final = "another uproxy on this node has installed the rules already"


@dataclass(frozen=True, kw_only=True)
class ClientAddressCalls:
    """What is asked of the kernel and of nft, so that tests can put a model in its place."""

    new_rules: Callable[[], ClientAddressRules] = ClientAddressRules
    remove_rules: Callable[[], Sequence[str]] = remove_rules
    """For the process that has the lock."""
    remove_leftovers: Callable[[], Sequence[str]] = remove_client_address_rules
    """For a process that does not have the lock."""
    take_lock: Callable[..., socket.socket] = take_lock
    bridge: BridgeCalls = field(default_factory=BridgeCalls)


_LINUX: Final = ClientAddressCalls()


class ClientIPPreservation:
    """Installs and removes the rules. An async context manager, whose end removes them; `run` does
    the work meanwhile."""

    def __init__(
        self,
        mode: str,
        *,
        changed: Callable[[], None],
        with_flows: Callable[[], Set[ObjectName]],
        period: float = _PERIOD,
        calls: ClientAddressCalls = _LINUX,
    ) -> None:
        """`mode`: a ClientIPMode. `changed` is called when `shown` has changed; `with_flows`
        returns the Services that have flows."""
        self._mode = mode
        self._changed = changed
        self._with_flows = with_flows
        self._period = period
        self._calls = calls
        self._rules = calls.new_rules()
        self._bridges = BridgeDiversion(calls.bridge)
        self._astray = AstrayPorts(changed)
        self._lock: socket.socket | None = None
        self._table = RoutingTable()
        self._networks = PodNetworks()
        """The pods that live here."""
        self._pods: tuple[str, ...] = ()
        """Networks of pods whose addresses can be shown."""
        self._families: tuple[Family, ...] = ()
        """Those for which all rules are there, and not only the first ones."""
        self._wanted: frozenset[ObjectName] = frozenset()
        self._may_have_flows: set[ObjectName] = set()
        """Services that may still have flows with clients' addresses."""
        self._tried = False
        """Whether `prepare` need not wait, as the outcome of an attempt is known."""
        self._impossible = False
        """Whether it has turned out not to be possible on this node."""
        self._repair_due = 0.0
        self._lift_due = math.inf
        """When Service ports that went astray before a repair are lifted once more."""
        self._wake = asyncio.Event()
        self._done = asyncio.Event()

    @property
    def shown(self) -> ClientAddresses:
        """Which clients' addresses backends can be shown, and why others cannot."""
        return ClientAddresses(
            families=self._families,
            reason=self._rules.reason,
            pods=self._pods,
            switched=self._bridges.switched if self._pods else {},
            astray=self._astray.ports,
        )

    async def __aenter__(self) -> Self:
        if self._mode == "never":
            self._rules.reason = _SWITCHED_OFF
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self._calls.remove_leftovers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._remove()

    async def prepare(self, table: RoutingTable) -> None:
        """Services want what this table says. Returns when the rules for it are installed, or are
        known not to be possible, or after a timeout."""
        if self._mode == "never":
            return
        first = not self._done.is_set()
        before = self._want(table)
        unknown = self._bridges.update(table.services)
        if self._wanted and (not self._tried or unknown):
            self._done.clear()
            self._wake.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TIMEOUT):
                    await self._done.wait()
        elif first or bool(before) != bool(self._wanted):
            self._wake.set()

    def set_networks(self, networks: PodNetworks) -> None:
        """These pods live here from now on. Workers learn at once of those that no longer do, and
        of those that are new when the rules for them are installed."""
        if self._mode != "never" and networks != self._networks:
            before = self.shown
            self._networks = networks
            self._pods = tuple(each for each in self._pods if each in networks.pods)
            self._bridges.set_networks(networks)
            self._want(self._table)
            self._wake.set()
            self._tell(before)

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """Paths on which replies to pods come back, as all workers have to know."""
        return self._astray.witnesses

    def reported(self, report: Report, is_wanted: Callable[[ServicePortName], bool]) -> None:
        """A worker says where replies to pods come back, and where they do not. `is_wanted` says
        whether a Service port exists."""
        if report.astray or report.witnesses or report.lost:
            self._astray.reported(
                [each for each in report.astray if is_wanted(each.port)],
                time.monotonic(),
                witnesses=[each for each in report.witnesses if is_wanted(each.owner)],
                lost=report.lost,
            )

    async def run(self) -> None:
        """Install, repair and remove the rules, for ever."""
        if not self._done.is_set():
            await self._wake.wait()
            await self._remove_leftovers()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._probe(), name="probes of bridges")
            await self._keep()

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            before = self.shown
            try:
                await self._update()
            except Exception as error:  # Services are still served, from this node's address.
                log.exception("cannot show clients' addresses to pods")
                self._rules.families, self._rules.reason = (), unexpected(error)
                self._families, self._pods = (), ()
            self._tell(before)
            if not self._wake.is_set():  # Otherwise something else is wanted by now.
                self._done.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    await self._wake.wait()

    async def _probe(self) -> None:
        """Try out bridges that have not shown yet that they work."""
        while True:
            await asyncio.sleep(self._period)
            if self._pods:
                before = self.shown
                await self._bridges.probe()
                self._tell(before)

    def _tell(self, before: ClientAddresses) -> None:
        after = self.shown
        if after == before:
            return
        if _replies_depend_on(after) != _replies_depend_on(before):
            self._astray.lift()
        if (after.families, after.switched.keys()) != (before.families, before.switched.keys()):
            self._astray.forget_witnesses()
        self._changed()

    def _want(self, table: RoutingTable) -> frozenset[ObjectName]:
        """Take over which Services want it; returns which did before."""
        before, self._table = self._wanted, table
        pods = table.preserves_pods if self._networks.pods else frozenset[ObjectName]()
        self._wanted = table.preserves_outside | pods
        self._may_have_flows |= self._wanted
        return before

    async def _update(self) -> None:
        now = time.monotonic()
        self._astray.expire(now)
        if now >= self._lift_due:
            self._lift_due = math.inf
            self._astray.lift()
        if self._wanted:
            if self._lock is None and not self._impossible:
                await self._install()
            elif self._lock is not None and time.monotonic() >= self._repair_due:
                await self._repair()
            if self._lock is not None:
                await self._bridges.apply()
            self._families = tuple(self._rules.families)
            self._pods = self._networks.pods if self._families else ()
            self._tried = True
        else:
            self._tried = self._impossible = False
            self._pods = ()
            if self._lock is None:
                self._rules.reason = ""
            elif not self._may_have_flows & self._with_flows():
                await self._remove()

    async def _install(self) -> None:
        try:
            self._lock = self._calls.take_lock(CLIENT_ADDRESSES, attempts=1)
        except OSError as error:
            self._impossible = not isinstance(error, Locked) and not is_temporary(error)
            self._rules.reason = _LOCKED if isinstance(error, Locked) else explain(error)
        else:
            await run_to_completion(self._rules.install)
            self._repair_due = time.monotonic() + self._period
            if not self._rules.families:
                self._impossible = not self._rules.temporary
                reason = self._rules.reason
                log.info("pods see this node's address instead of the client's: %s", reason)
                await self._remove()
                self._rules.reason = reason

    async def _repair(self) -> None:
        """Install again what another program has removed, or what could not be repaired before."""
        there = bool(self._rules.families)
        self._bridges.forget(self._with_flows)
        if await self._bridges.repair():
            log.warning("another program removed rules for pods behind a bridge: repaired")
            self._lift_astray()
        self._repair_due = time.monotonic() + self._period
        self._forget_ended()
        if there and await asyncio.to_thread(self._rules.intact):
            return
        await run_to_completion(self._rules.install)
        if self._rules.families:
            self._lift_astray()
        outcome = self._rules.reason or "repaired"
        if there:
            log.warning(
                "another program removed the rules that show clients' addresses to pods: %s",
                outcome,
            )
        elif self._rules.families:
            log.info("pods see clients' addresses again")

    def _lift_astray(self) -> None:
        """Replies may have gone astray for want of the rules. Workers may still be about to say
        so, hence once more in the next period."""
        self._astray.lift()
        self._lift_due = time.monotonic() + _SETTLED

    def _forget_ended(self) -> None:
        """Forget Services that no longer want it and have no flows: names come and go for ever."""
        if len(self._may_have_flows) > len(self._wanted):
            ended = self._may_have_flows - self._wanted - self._with_flows()
            self._may_have_flows -= ended

    async def _remove(self) -> None:
        lock, self._lock = self._lock, None
        if lock is None:
            return
        self._rules.families, self._rules.reason = (), ""
        self._families, self._pods = (), ()
        await self._bridges.stop()
        self._may_have_flows = set(self._wanted)
        with lock:
            try:
                await run_to_completion(self._calls.remove_rules)
            except Exception as error:
                log.warning(
                    "cannot remove the rules that showed clients' addresses to pods: %s", error
                )

    async def _remove_leftovers(self) -> None:
        if not self._wanted:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self._calls.remove_leftovers)


def _replies_depend_on(shown: ClientAddresses) -> tuple[object, ...]:
    """What has changed when replies may come back that did not before, or no longer do. Where each
    pod has a link and a route of its own, pods that come and go change nothing for the others."""
    wide = frozenset(
        each for each in shown.pods if not each.endswith("/128" if ":" in each else "/32")
    )
    return shown.families, shown.reason, frozenset(shown.switched), wide
