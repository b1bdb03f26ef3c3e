"""The objects of the cluster that concern load balancers only, and the Leases of other announcers.

They are watched apart from those that decide about traffic: whatever goes wrong with them holds up
no Service that has its addresses. An outage of the API server takes nothing away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from uproxy.apiserver.request import ApiServer
from uproxy.config.settings import Config
from uproxy.core.allocation.ip_address_pools import IPAddressPool
from uproxy.core.announcing.l2_advertisements import L2Advertisement
from uproxy.core.announcing.lease_objects import SELECTOR, UnusableLease, decode
from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.cluster.load_balancer import Assigning
from uproxy.core.cluster.objects import ApiObject, Lease, Namespace, ObjectMeta, ObjectName
from uproxy.core.report.status import ObjectStatus
from uproxy.core.report.unusable_objects import log_lines
from uproxy.core.route import Announced
from uproxy.sources.kubernetes.resources import Resource
from uproxy.sources.kubernetes.timing import Timing
from uproxy.sources.kubernetes.watchers import Watchers

log = logging.getLogger(__name__)

POOLS: Final = "ipaddresspools"
ADVERTISEMENTS: Final = "l2advertisements"
NAMESPACES: Final = "namespaces"
LEASES: Final = "leases"

_METALLB: Final = "/apis/metallb.io/v1beta1/namespaces"
_TIMING: Final = Timing()

T = TypeVar("T", bound=ApiObject)


class LeaseObserver(Protocol):
    """Learns of the Leases of announcing nodes, in exactly the order in which the API server sends
    them. Called on the event loop; it must not raise."""

    def listed(self, leases: Sequence[AnnouncerLease]) -> None:
        """These are all that there are. Those of them that are new have been seen before."""

    def saw(self, lease: AnnouncerLease) -> None:
        """One is new, or was written."""

    def gone(self, node: str) -> None:
        """That of this node was deleted."""


def wanted(config: Config, lease_namespace: str) -> Sequence[Resource[Any]]:
    """What has to be watched, which depends on where addresses come from. Pools from flags need
    none of MetalLB's objects, and only announcers on a common segment need each other's Leases."""
    found: list[Resource[Any]] = []
    if config.lb_mode == Assigning.METALLB:
        directory = f"{_METALLB}/{config.metallb_namespace}"
        found += [
            Resource(
                source=POOLS,
                kind=IPAddressPool,
                path=f"{directory}/{POOLS}",
                optional=True,
                reduce=_whole,
            ),
            Resource(
                source=NAMESPACES, kind=Namespace, path="/api/v1/namespaces", reduce=_labels_only
            ),
        ]
        if config.announce == Announced.L2:
            found.append(
                Resource(
                    source=ADVERTISEMENTS,
                    kind=L2Advertisement,
                    path=f"{directory}/{ADVERTISEMENTS}",
                    optional=True,
                    reduce=_whole,
                )
            )
    if Assigning(config.lb_mode).from_pools and config.announce == Announced.L2:
        root = f"/apis/coordination.k8s.io/v1/namespaces/{lease_namespace}"
        leases = Resource(source=LEASES, kind=Lease, path=f"{root}/leases", labels=SELECTOR)
        found.append(leases)
    return found


class LoadBalancerObjects:
    """Keeps pools, advertisements and namespaces, and passes Leases on."""

    name = "watcher of load-balancer objects"

    def __init__(
        self,
        api: ApiServer,
        resources: Sequence[Resource[Any]],
        *,
        timing: Timing = _TIMING,
    ) -> None:
        self.errors: dict[str, Sequence[ObjectStatus]] = {}
        """By kind: the objects that cannot be read."""
        self._sources = frozenset(each.source for each in resources)
        self._objects: dict[str, dict[ObjectName, Any]] = {each: {} for each in self._sources}
        self._listed: set[str] = set()
        self._observers: list[Callable[[], None]] = []
        self._leases: LeaseObserver | None = None
        self._nodes: dict[ObjectName, str] = {}
        """By Lease: the node whose it is."""
        self._ignored: dict[ObjectName, str] = {}
        """By Lease: why it is ignored."""
        self._watchers = Watchers(
            api, resources, what="the objects of load balancers", timing=timing
        )

    @property
    def pools(self) -> Mapping[ObjectName, IPAddressPool]:
        """It follows the cluster, as do all that are returned here."""
        return self._objects.get(POOLS, {})

    @property
    def advertisements(self) -> Mapping[ObjectName, L2Advertisement]:
        return self._objects.get(ADVERTISEMENTS, {})

    @property
    def namespaces(self) -> Mapping[str, Mapping[str, str]]:
        """The labels of each."""
        found = self._objects.get(NAMESPACES, {})
        return {name.name: each.metadata.labels or {} for name, each in found.items()}

    @property
    def complete(self) -> bool:
        """Whether everything has been listed once. It stays true: an outage takes nothing away."""
        return self._sources - {LEASES} <= self._listed

    @property
    def reachable(self) -> bool:
        """Whether everything is being watched at this moment."""
        return self._watchers.reachability.reachable

    @property
    def trouble(self) -> str:
        """Why something cannot be watched at present; "" if everything is."""
        troubles = self._watchers.reachability.troubles
        return "; ".join(f"{name}: {reason}" for name, reason in sorted(troubles.items()))

    def observe_leases(self, leases: LeaseObserver) -> None:
        """Have `leases` learn of the Leases, which are not kept here."""
        self._leases = leases

    def observe(self, changed: Callable[[], None]) -> None:
        """Have `changed` called after each change of what is kept here. It must not raise."""
        self._observers.append(changed)

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        await self._watchers.run(self)

    def watch_leases_anew(self) -> None:
        """Begin the watch of Leases again where it was: what was written does not come back, so it
        may have been cut off without a word."""
        self._watchers.restart(LEASES)

    def replace(self, source: str, objects: Sequence[ApiObject]) -> None:
        """See SinkOf."""
        if source == LEASES:
            self._list_leases(objects)
            return
        first, listed = source not in self._listed, {each.key: each for each in objects}
        self._listed.add(source)
        known = self._objects[source]
        if first or known != listed:
            known.clear()
            known.update(listed)
            self._tell()

    def apply(self, source: str, obj: ApiObject) -> None:
        """See SinkOf."""
        if source == LEASES:
            self._see_lease(obj)
            return
        self._objects[source][obj.key] = obj
        self._tell()

    def remove(self, source: str, kind: type[ApiObject], key: ObjectName) -> None:
        """See SinkOf."""
        if source == LEASES:
            self._lose_lease(key)
            return
        if self._objects[source].pop(key, None) is not None:
            self._tell()

    def report_errors(self, source: str, errors: Sequence[ObjectStatus]) -> None:
        """See SinkOf."""
        for line in log_lines(self.errors.get(source, ()), errors):
            log.warning("%s", line)
        self.errors[source] = errors
        self._tell()

    def _tell(self) -> None:
        for changed in self._observers:
            changed()

    def _list_leases(self, leases: Sequence[ApiObject]) -> None:
        names = {each.key for each in leases}
        for known in (self._nodes, self._ignored):
            for name in known.keys() - names:
                del known[name]
        found = [self._decoded(each) for each in leases]
        if self._leases is not None:
            self._leases.listed([each for each in found if each is not None])

    def _see_lease(self, lease: ApiObject) -> None:
        found = self._decoded(lease)
        if found is not None and self._leases is not None:
            self._leases.saw(found)

    def _lose_lease(self, name: ObjectName) -> None:
        self._ignored.pop(name, None)
        node = self._nodes.pop(name, None)
        if node is not None and self._leases is not None:
            self._leases.gone(node)

    def _decoded(self, lease: ApiObject) -> AnnouncerLease | None:
        """What a Lease says; None if it is ignored. One that cannot be read any more leaves in
        effect what it said before, until that expires."""
        found = decode(msgspec.to_builtins(lease))
        if isinstance(found, AnnouncerLease):
            self._nodes[lease.key] = found.node
            self._ignored.pop(lease.key, None)
            return found
        self._note_ignored(lease.key, found)
        return None

    def _note_ignored(self, name: ObjectName, lease: UnusableLease) -> None:
        if self._ignored.get(name) != lease.reason:
            self._ignored[name] = lease.reason
            log.warning("Lease %s is ignored: %s", lease.name, lease.reason)


def _whole(obj: T) -> T:
    """All that is read of an object matters, but its version: uproxy writes the status of pools."""
    return obj


def _labels_only(namespace: Namespace) -> Namespace:
    metadata = namespace.metadata
    return Namespace(
        metadata=ObjectMeta(
            name=metadata.name, resource_version=metadata.resource_version, labels=metadata.labels
        )
    )
