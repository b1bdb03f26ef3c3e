"""Where addresses come from: pools, or the nodes themselves; each with what decides about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from uproxy.core.allocation.allocator import Allocator
from uproxy.core.allocation.cluster_ips import ClusterIPs
from uproxy.core.allocation.decisions import Decision
from uproxy.core.allocation.holdings import PoolUsage
from uproxy.core.allocation.node_addresses import NodeAllocator
from uproxy.core.allocation.pools import Pool
from uproxy.core.cluster.objects import Endpoints, EndpointSlice, Node, Object, ObjectName, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.core.ip import Family


class Allocating(Protocol):
    """What decides."""

    @property
    def decisions(self) -> Mapping[ObjectName, Decision]: ...
    def put(self, service: Service) -> None: ...
    def remove(self, name: ObjectName) -> None: ...
    def converge(self, *, complete: bool) -> Sequence[Decision]: ...


class Supply(Protocol):
    """Tells what decides of everything but Services."""

    @property
    def complete(self) -> bool:
        """Whether all of it is known."""

    @property
    def pools(self) -> Sequence[Pool]:
        """Those that there are."""

    @property
    def usage(self) -> Mapping[str, Mapping[Family, PoolUsage]]:
        """The use of each pool, by its name."""

    def begin_anew(self) -> Allocating:
        """Forget everything, and start with something that has not decided anything yet."""

    def object_changed(self, kind: type[Object], name: ObjectName) -> bool:
        """An object has come, changed or gone. Returns whether that matters here."""

    def tell(self) -> Iterator[None]:
        """Tell what has changed. Others may run whenever this yields."""


class PoolCatalog(Protocol):
    """The pools in effect: see Catalog."""

    @property
    def pools(self) -> Sequence[Pool]: ...
    @property
    def namespaces(self) -> Mapping[str, Mapping[str, str]]: ...
    @property
    def complete(self) -> bool: ...


class PoolSupply:
    """Pools, without the addresses that lie in them, but are those of Nodes, of API servers, or of
    Services within the cluster, or on which this node depends."""

    def __init__(
        self,
        state: ClusterState,
        catalog: PoolCatalog,
        *,
        occupied: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`occupied` returns which addresses this machine knows to belong to a host, and what each
        is. Another process may know of others, so holders keep theirs."""
        self._state = state
        self._catalog = catalog
        self._occupied = occupied
        self.begin_anew()

    @property
    def complete(self) -> bool:
        return self._catalog.complete

    @property
    def pools(self) -> Sequence[Pool]:
        return self._catalog.pools

    @property
    def usage(self) -> Mapping[str, Mapping[Family, PoolUsage]]:
        return self._allocator.usage()

    def begin_anew(self) -> Allocating:
        self._hosts: Mapping[str, str] = {}
        """Addresses that are not handed out, each with the host that has it. It is a copy, since
        the allocator may look at it from another thread."""
        self._hosts_version: tuple[int, Mapping[str, str]] = (-1, {})
        self._cluster_ips = ClusterIPs()
        self._changed = set(self._state.service_names())
        self._pools: Sequence[Pool] = ()
        self._namespaces: Mapping[str, Mapping[str, str]] = {}
        self._allocator = Allocator(
            lambda address: self._hosts.get(address, "") or self._cluster_ips.owner(address)
        )
        return self._allocator

    def object_changed(self, kind: type[Object], name: ObjectName) -> bool:
        if kind is Service:
            self._changed.add(name)
        return kind is Node

    def tell(self) -> Iterator[None]:
        hosts, occupied = self._state.hosts, self._occupied()
        if self._hosts_version != (hosts.version, occupied):
            self._hosts_version, before = (hosts.version, occupied), self._hosts
            self._hosts = {**occupied, **{each: hosts.host_of(each) for each in hosts.addresses}}
            self._allocator.recheck(before.keys() ^ self._hosts.keys())
            yield
        while self._changed:
            name = self._changed.pop()
            changed = self._cluster_ips.put(name, self._state.service(name))
            if changed:
                self._allocator.recheck(changed)
                yield
        namespaces, pools = self._catalog.namespaces, self._catalog.pools
        if namespaces != self._namespaces:
            self._namespaces = namespaces
            self._allocator.set_namespaces(namespaces)
            yield
        if pools != self._pools:
            self._pools = pools
            self._allocator.set_pools(pools)
            yield


class NodeSupply:
    """The addresses of the nodes, or of this machine alone."""

    complete = True
    pools: Sequence[Pool] = ()
    usage: Mapping[str, Mapping[Family, PoolUsage]] = {}

    def __init__(self, state: ClusterState, *, localhost: bool) -> None:
        self._state = state
        self._localhost = localhost
        self._owners: dict[ObjectName, ObjectName] = {}
        """The Service of each EndpointSlice."""
        self.begin_anew()

    def begin_anew(self) -> Allocating:
        self._allocator = NodeAllocator(localhost=self._localhost)
        objects = self._state.all_objects()
        self._nodes = {each.key: each for each in objects if isinstance(each, Node)}
        self._nodes_changed = True
        self._changed = {each.key for each in objects if isinstance(each, Endpoints)}
        for each in objects:
            if isinstance(each, EndpointSlice):
                self._slice_changed(each.key)
        return self._allocator

    def object_changed(self, kind: type[Object], name: ObjectName) -> bool:
        if self._localhost or kind is Service:
            return False
        if kind is Node:
            node = self._state.node_object(name.name)
            self._nodes.pop(name, None)
            if node is not None:
                self._nodes[name] = node
            self._nodes_changed = True
        elif kind is EndpointSlice:
            self._slice_changed(name)
        else:
            self._changed.add(name)
        return True

    def tell(self) -> Iterator[None]:
        if self._nodes_changed:
            self._nodes_changed = False
            self._allocator.set_nodes(self._nodes.values())
            yield
        changed, self._changed = self._changed, set()
        for name in changed:
            self._allocator.set_endpoint_nodes(name, frozenset(self._nodes_of(name)))
            yield

    def _slice_changed(self, name: ObjectName) -> None:
        before = self._owners.pop(name, None)
        found = self._state.endpoint_slice(name)
        if found is not None and found.service is not None:
            self._owners[name] = found.service
            self._changed.add(found.service)
        if before is not None:
            self._changed.add(before)

    def _nodes_of(self, service: ObjectName) -> Iterator[str]:
        """The nodes that have a ready endpoint of a Service."""
        for each in self._state.slices_of(service):
            for endpoint in each.endpoints or ():
                if endpoint.node_name and endpoint.conditions.ready is not False:
                    yield endpoint.node_name
