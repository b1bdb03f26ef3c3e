"""Exports the addresses that this node serves to a routing daemon, and withdraws them in time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from uproxy.control.load_balancer.node_eligibility import NodeEligibility
from uproxy.control.load_balancer.served import Served
from uproxy.core.announcing.exports import exports
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.report.load_balancer import AddressStatus
from uproxy.host import export_routes
from uproxy.host.threads import run_to_completion

log = logging.getLogger(__name__)

_PERIOD: Final = 5.0
"""Seconds between two checks whether all exports are still there: `ip route flush` removes them."""
_OCCUPIED: Final = "the main routing table has a route of another program to it"
_FEW: Final = 3
_DRAINING: Final = "this node is draining"


@dataclass(frozen=True, kw_only=True)
class ExportCalls:
    """What is asked of the kernel, each call in a thread. Tests put a model in its place."""

    add: Callable[[Sequence[str]], Mapping[str, OSError]] = export_routes.add_exports
    withdraw: Callable[[Sequence[str]], Mapping[str, OSError]] = export_routes.withdraw_exports
    held: Callable[[], frozenset[str]] = export_routes.held_exports


_LINUX: Final = ExportCalls()


class RouteAnnouncer:
    """A part of the load balancer. What is exported follows what is served, also what a uproxy that
    was killed had exported."""

    name: Final = "route announcer"

    def __init__(
        self,
        served: Served,
        eligibility: NodeEligibility,
        calls: ExportCalls = _LINUX,
        *,
        period: float = _PERIOD,
    ) -> None:
        self._served = served
        self._eligibility = eligibility
        self._calls = calls
        self._period = period
        self._changed = asyncio.Event()
        self._busy = asyncio.Lock()
        """Held while netlink is used, so that draining and a change cannot overtake each other."""
        self._draining = False
        self._read = False
        """Whether it was read what an earlier process has exported."""
        self._exported: frozenset[str] = frozenset()
        self._reasons: Mapping[str, str] = {}
        self._trouble = ""

    @property
    def exported(self) -> Set[str]:
        """The addresses that this node exports at this moment."""
        return self._exported

    @property
    def reasons(self) -> Mapping[str, str]:
        """By address that is announced by routes: why this node does not export it, or ""."""
        return self._reasons

    def statuses(self) -> Iterator[AddressStatus]:
        """What this node does about each address that is announced by routes."""
        for address, reason in self._reasons.items():
            here = address in self._exported
            yield AddressStatus(address=address, here=here, reason=reason)

    async def run(self) -> None:
        """See Part."""
        check = True
        while True:
            self._changed.clear()
            await self._converge(check=check)
            check = not await self._change_within(self._period)

    def object_changed(self, kind: type[Object], name: ObjectName) -> None:
        """See Part. What other objects mean for this node is in the routes after the next sync."""
        if self._eligibility.object_changed(kind, name):
            self._changed.set()

    def changed(self) -> None:
        """See Part."""
        self._changed.set()

    async def release(self) -> None:
        """See Part."""
        self._draining = True
        await self._converge(check=True)

    async def _change_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        return self._changed.is_set()

    async def _converge(self, *, check: bool) -> None:
        """Export what is to be exported, and nothing else. `check` reads what the kernel has."""
        async with self._busy:
            if not self._served.all_known() and not self._draining:
                return
            found = exports(self._served.routes().values(), self._served.is_open, self._refusal())
            if not self._served.owned():
                self._reasons = found
                return
            wanted = frozenset(address for address, reason in found.items() if not reason)
            try:
                failures = await self._export(wanted, check=check)
            except OSError as error:
                failures = dict.fromkeys(wanted - self._exported, error.strerror or str(error))
                self._tell(f"{error.strerror or error}")
            else:
                self._tell(next((f"{each}: {why}" for each, why in failures.items()), ""))
            self._reasons = {**found, **failures}

    def _refusal(self) -> str:
        if self._draining:
            return _DRAINING
        return self._served.refusal() or self._eligibility.refusal

    async def _export(self, wanted: frozenset[str], *, check: bool) -> Mapping[str, str]:
        """Returns the addresses that cannot be exported, with the reason. Raises OSError."""
        if check or not self._read:
            await self._look(wanted)
        gone, new = self._exported - wanted, wanted - self._exported
        failures: dict[str, str] = {}
        if gone:  # First, as clients must not be sent here in vain.
            failed = await run_to_completion(self._calls.withdraw, sorted(gone))
            self._exported -= gone - failed.keys()
            _log("withdrew the route to", gone - failed.keys())
        if new:
            failed = await run_to_completion(self._calls.add, sorted(new))
            held = await run_to_completion(self._calls.held)
            self._exported |= new & held
            failures = dict.fromkeys(new - held, _OCCUPIED)
            failures |= {each: str(why.strerror) for each, why in failed.items()}
            _log("exports a route to", new & held)
        return failures

    async def _look(self, wanted: frozenset[str]) -> None:
        held = await run_to_completion(self._calls.held)
        lost = (self._exported & wanted) - held
        if lost:
            log.warning("exports again %d addresses whose routes were removed", len(lost))
        elif held and not self._read:
            log.info("took over the exported routes of an earlier run: %d", len(held))
        self._exported, self._read = held, True

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("cannot export addresses as routes: %s; retrying", trouble)
        self._trouble = trouble


def _log(verb: str, addresses: Set[str]) -> None:
    if len(addresses) > _FEW:
        log.info("%s each of %d addresses", verb, len(addresses))
    elif addresses:
        log.info("%s %s", verb, ", ".join(sorted(addresses)))
