"""Keeps the rules that bring replies between two pods of one bridge up to this node."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from uproxy.control.bridged_backends import MOST, BridgedBackends
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.errors import unexpected
from uproxy.core.route import Backend
from uproxy.core.routing.service_routes import ServiceRoutes
from uproxy.host.bridge_probe import replies_come_back
from uproxy.host.bridge_rules import BridgeRules
from uproxy.host.links import read_neighbours
from uproxy.host.pod_networks import PodNetworks, Segment
from uproxy.host.threads import run_to_completion
from uproxy.net.client_ports import PROBE_PORT

log = logging.getLogger(__name__)

_NOT_A_BRIDGE: Final = "{name} is not a Linux bridge, so replies between its pods do not come here"
_TOO_MANY: Final = f"more than {MOST:,} backends are behind bridges of this node"
_NO_ANSWER: Final = "replies of its pods do not come up from the bridge {name}"

_SILENT_PODS: Final = 3
"""So many pods have to be silent before a bridge is taken for one that does not work."""


@dataclass(frozen=True, kw_only=True)
class BridgeCalls:
    """What is asked of the kernel and of nft, each in a thread. Tests put a model in its place."""

    new_rules: Callable[[], BridgeRules] = BridgeRules
    neighbours: Callable[[int], Mapping[str, str]] = read_neighbours
    replies_come_back: Callable[[str, str], bool | None] = replies_come_back


class BridgeDiversion:
    """Diverts the replies of backends that are behind a bridge of this node."""

    def __init__(self, calls: BridgeCalls) -> None:
        self._calls = calls
        self._rules = calls.new_rules()
        self._backends = BridgedBackends()
        self._networks = PodNetworks()
        self._active = False
        """Whether the rules may be changed: they are this process's."""
        self._too_many = False
        """Whether more backends are wanted than the rules can have."""
        self._silent: frozenset[Segment] = frozenset()
        """Networks of which a probe was not answered."""
        self._proven: frozenset[Segment] = frozenset()
        """Networks of which a probe was answered."""
        self._unanswered: dict[Segment, frozenset[str]] = {}
        """Pods that answered this node, but not another pod's address."""
        self._probed: dict[Backend, str] = {}
        """The backend of the probe under way, and the address of its bridge."""
        self._busy = asyncio.Lock()
        """Held while nft is used for the bridge table."""

    @property
    def switched(self) -> Mapping[str, str]:
        """Networks in which replies between two pods do not come by this node, each with the
        reason."""
        found = {}
        for each in self._networks.segments:
            reason = self._reason or (_NO_ANSWER if each in self._silent else "")
            reason = reason if each.bridge_mac else _NOT_A_BRIDGE
            if reason:
                found[each.network] = reason.format(name=each.name)
        return found

    def set_networks(self, networks: PodNetworks) -> None:
        """These pods live here. `apply` has to be called afterwards."""
        self._networks = networks
        self._backends.set_segments(networks.segments)
        self._silent &= frozenset(networks.segments)
        self._proven &= frozenset(networks.segments)
        self._unanswered = {
            each: tried for each, tried in self._unanswered.items() if each in networks.segments
        }

    def update(self, services: Mapping[ObjectName, ServiceRoutes]) -> bool:
        """Take over what Services want. Returns whether `apply` has to be called before workers
        learn of it."""
        return self._backends.update(services) and not self._reason

    @property
    def _reason(self) -> str:
        """Why no bridge works."""
        return _TOO_MANY if self._too_many else self._rules.reason

    def forget(self, with_flows: Callable[[], Set[ObjectName]]) -> None:
        """Forget backends that have left their Service, if it has no flows."""
        self._backends.forget(with_flows)

    async def apply(self) -> None:
        """Make the rules agree with the backends."""
        async with self._busy:
            self._active = True
            await self._divert()

    async def repair(self) -> bool:
        """Restore what another program has removed, and try again what has failed. Returns
        whether something was restored."""
        async with self._busy:
            intact = True
            if self._rules.installed:
                intact = await asyncio.to_thread(self._intact)
                if not intact:
                    await run_to_completion(self._rules.restore)
            await self._divert()
            return not intact

    async def probe(self) -> bool:
        """Try out every network that is not proven. Returns whether `switched` has changed."""
        before = self.switched
        for segment in self._networks.segments:
            if segment.bridge_mac and segment not in self._proven and not self._reason:
                await self._probe(segment)
        return self.switched != before

    async def stop(self) -> None:
        """The caller is going to remove the rules, so nothing may be diverted until the next
        `apply`."""
        async with self._busy:
            self._active = False
            self._rules = self._calls.new_rules()
            self._silent = self._proven = frozenset()
            self._unanswered.clear()

    async def _divert(self) -> None:
        before, wanted = self._reason, {**self._probed, **self._backends.diverted()}
        self._too_many = len(wanted) > MOST
        try:
            await run_to_completion(self._rules.divert, {} if self._too_many else wanted)
        except Exception as error:
            log.exception("cannot divert replies of pods behind a bridge")
            self._rules.installed, self._rules.reason = False, unexpected(error)
        if self._reason and self._reason != before:
            log.info("pods of one bridge see this node's address: %s", self._reason)

    def _intact(self) -> bool:
        try:
            return self._rules.intact()
        except OSError:
            return False

    async def _probe(self, segment: Segment) -> None:
        pair = await self._pair(segment)
        if pair is None:
            return
        client, backend = pair
        self._probed = {Backend(backend, PROBE_PORT): segment.bridge_mac}
        try:
            async with self._busy:
                if not self._active:
                    return
                await self._divert()
            answered = await run_to_completion(self._try, client, backend)
        except OSError as error:
            log.info("cannot probe the bridge %s: %s", segment.name, error)
            return
        finally:
            self._probed = {}
        self._judge(segment, backend, answered=answered)

    def _try(self, client: str, backend: str) -> bool | None:
        """Whether the replies of `backend` to `client` come up. None: there is no telling, as it
        does not reply. A NetworkPolicy may drop what the pod sends, and let the node's own pass."""
        before = self._rules.answers_to_probes()
        answered = self._calls.replies_come_back(client, backend)
        if answered is False and self._rules.answers_to_probes() <= before:
            return None
        return answered

    async def _pair(self, segment: Segment) -> tuple[str, str] | None:
        """Two pods of a network. The second one was not probed yet, if there is such a one.

        A pod may have several addresses, of which one is used: it drops a packet that comes from
        another address of its own, as if it were forged.
        """
        neighbours = await asyncio.to_thread(self._calls.neighbours, segment.interface)
        network = ipaddress.ip_network(segment.network)
        of_network = sorted(each for each in neighbours if ipaddress.ip_address(each) in network)
        pods = sorted({neighbours[each]: each for each in reversed(of_network)}.values())
        if len(pods) < 2:
            return None
        tried = self._unanswered.get(segment, frozenset())
        backend = next((each for each in pods if each not in tried), pods[0])
        return next(each for each in pods if each != backend), backend

    def _judge(self, segment: Segment, backend: str, *, answered: bool | None) -> None:
        """One answer proves that a bridge works. It takes lost ones of several pods to say that it
        does not."""
        if answered:
            self._proven |= {segment}
            self._silent -= {segment}
            self._unanswered.pop(segment, None)
        elif answered is False:
            tried = self._unanswered.get(segment, frozenset()) | {backend}
            self._unanswered[segment] = tried
            if len(tried) >= _SILENT_PODS and segment not in self._silent:
                log.warning("%s: %s", segment.network, _NO_ANSWER.format(name=segment.name))
                self._silent |= {segment}
