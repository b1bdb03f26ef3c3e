"""What the sources say about the cluster, and which Services have changed since the last look."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from uproxy.core.cluster.api_servers import SERVICE as _API
from uproxy.core.cluster.api_servers import api_server_addresses
from uproxy.core.cluster.host_addresses import API_SERVER, HostAddresses, node_host
from uproxy.core.cluster.legacy import as_slices
from uproxy.core.cluster.objects import Endpoints, EndpointSlice, Node, Object, ObjectName, Service
from uproxy.core.ip import parse_ip

_ZONE: Final = "topology.kubernetes.io/zone"
_IP_SLICES: Final = frozenset(("IPv4", "IPv6"))
_ADDRESS_ORDER: Final = ("InternalIP", "ExternalIP")

Kind = TypeVar("Kind", bound=Object)
_Identity = tuple[type[Any], ObjectName]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the cluster knows about this node."""

    name: str
    known: bool = False
    """Whether there is a Node of this name. If it has been deleted, `zone`, `pod_cidrs` and
    `addresses` are what they were; if it has never been there, they are empty."""
    zone: str = ""
    pod_cidrs: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """In canonical form. Those of type InternalIP come first, otherwise in the order of the Node,
    so that the first of each family is the primary one, as in kube-proxy."""
    deleting: bool = False
    taints: tuple[str, ...] = ()
    """The keys of its taints."""

    @classmethod
    def of(cls, node: Node) -> NodeFacts:
        """Reduce a Node to the fields that matter, so that its heartbeats change nothing."""
        return cls(
            name=node.metadata.name,
            known=True,
            zone=(node.metadata.labels or {}).get(_ZONE, ""),
            pod_cidrs=node.spec.pod_cidrs or tuple(filter(None, (node.spec.pod_cidr,))),
            addresses=_addresses(node),
            deleting=node.metadata.deletion_timestamp is not None,
            taints=tuple(taint.key for taint in node.spec.taints or ()),
        )


class ClusterState:
    """The objects of all sources. No source can remove an object of another one.

    If several sources have the same object, that of the source named first counts. Of other Nodes
    than this one only the addresses matter. EndpointSlices of addressType FQDN are not kept, since
    nothing could be routed to host names (kube-proxy ignores them too).
    """

    def __init__(self, sources: Iterable[str], *, node_name: str = "") -> None:
        self.node = NodeFacts(name=node_name)
        self.hosts = HostAddresses()
        """The addresses of all Nodes and of the API servers."""
        self.api_servers: tuple[str, ...] = ()
        """Where the API servers are, as of the last `take_dirty`: see `api_server_addresses`."""
        self._changed_addresses: set[str] = set()
        """Addresses that a host has got or lost since the last `take_dirty`."""
        self._services_by_address: dict[str, set[ObjectName]] = {}
        """Services by each address at which they are to be reached."""
        self._objects: dict[str, dict[_Identity, Object]] = {source: {} for source in sources}
        self._unsynced = set(self._objects)
        self._last_known: set[str] = set()
        self._slices: dict[ObjectName, dict[ObjectName, EndpointSlice]] = {}
        self._dirty: set[ObjectName] = set()
        self._observers: list[Callable[[type[Object], ObjectName], None]] = []

    @property
    def unlisted(self) -> Sequence[str]:
        """Sources that have neither listed nor have a last-known state."""
        return sorted(self._unsynced - self._last_known)

    @property
    def synced(self) -> bool:
        """Whether every source has listed once. It stays true, since a source that falls silent
        later has not lost its objects."""
        return not self._unsynced

    @property
    def servable(self) -> bool:
        """Whether the whole cluster is known: each source has listed, or has a last-known state."""
        return self._unsynced <= self._last_known

    def sync(self, source: str) -> None:
        """Note that all objects of a source were applied. Raises KeyError for an unknown source."""
        if source not in self._objects:
            raise KeyError(source)
        self._unsynced.discard(source)

    def accept_last_known(self, source: str) -> None:
        """Note that the objects applied so far are the last-known state of a source.

        They may be served, but until the source itself has listed, nothing is taken away.
        """
        self._last_known.add(source)

    def listed(self, source: str) -> bool:
        """Whether a source has listed once. Raises KeyError for an unknown source."""
        if source not in self._objects:
            raise KeyError(source)
        return source not in self._unsynced

    def observe(self, changed: Callable[[type[Object], ObjectName], None]) -> None:
        """Have `changed` called after each change of an object, with its kind and name. It must not
        raise, and not change the state."""
        self._observers.append(changed)

    def all_objects(self) -> list[Object]:
        """Every object of every source."""
        return [obj for objects in self._objects.values() for obj in objects.values()]

    def apply(self, source: str, obj: Object) -> None:
        """Add or replace an object. Raises KeyError for an unknown source."""
        objects = self._objects[source]
        kind, name = type(obj), obj.key
        if not self._matters(obj):
            self.remove(source, kind, name)
            return
        if objects.get((kind, name)) == obj:
            return
        before, mine = self._find(kind, name), objects.get((kind, name))
        objects[kind, name] = obj
        try:
            self._record_change(kind, name, before)
        except Exception:
            # As if the object had not come. Otherwise it would be no change when it comes again.
            _put_back(objects, (kind, name), mine)
            raise

    def remove(self, source: str, kind: type[Object], key: ObjectName) -> None:
        """Remove an object, if it is there. Raises KeyError for an unknown source."""
        objects = self._objects[source]
        if (kind, key) in objects:
            before = self._find(kind, key)
            del objects[kind, key]
            self._record_change(kind, key, before)

    def replace(self, source: str, objects: Iterable[Object]) -> None:
        """Apply a full list of a source. Objects that it lacks are removed; the source is
        synced."""
        known = self._objects[source]
        absent = set(known)
        for obj in objects:
            identity = type(obj), obj.key
            absent.discard(identity)
            if known.get(identity) is not obj:
                self.apply(source, obj)
        for kind, name in absent:
            self.remove(source, kind, name)
        self.sync(source)

    def delivered_except(self, source: str, there: Container[_Identity]) -> Sequence[_Identity]:
        """The objects of a source that are not in `there`."""
        return [identity for identity in self._objects[source] if identity not in there]

    def mark_dirty(self, services: Iterable[ObjectName]) -> None:
        """Have these Services derived again."""
        self._dirty.update(services)

    def new_or_changed(self, source: str, objects: Iterable[Object]) -> Iterator[Object]:
        """The objects that are not the very ones that the source has delivered before."""
        known = self._objects[source]
        return (obj for obj in objects if known.get((type(obj), obj.key)) is not obj)

    def take_dirty(self) -> set[ObjectName]:
        """The Services whose routes may have changed since the last call. Some may be gone."""
        taken, self._dirty = self._dirty, set()
        if _API in taken:
            slices = self.slices_of(_API)
            self.api_servers = api_server_addresses(slices)
            found = (each for slice_ in slices for each in _endpoints(slice_))
            self._changed_addresses |= self.hosts.put(API_SERVER, found)
        if self._changed_addresses:
            taken.update(
                name
                for each in self._changed_addresses
                for name in self._services_by_address.get(each, ())
            )
            self._changed_addresses = set()
        return taken

    def service(self, name: ObjectName) -> Service | None:
        """The Service of this name; None if there is none."""
        return self._find(Service, name)

    def endpoint_slice(self, name: ObjectName) -> EndpointSlice | None:
        """The EndpointSlice of this name; None if there is none."""
        return self._find(EndpointSlice, name)

    def node_object(self, name: str) -> Node | None:
        """The Node of this name; None if there is none."""
        return self._find(Node, ObjectName("", name))

    def service_names(self) -> set[ObjectName]:
        """The names of all Services. Walks every object, so it is not called at every change."""
        return {
            name for objects in self._objects.values() for kind, name in objects if kind is Service
        }

    def service_labels(self) -> dict[ObjectName, Mapping[str, str]]:
        """The labels of all Services. Walks every object, like `service_names`."""
        found = ((name, self._find(Service, name)) for name in self.service_names())
        return {name: each.metadata.labels or {} for name, each in found if each is not None}

    def slices_of(self, service: ObjectName) -> Sequence[EndpointSlice]:
        """The EndpointSlices of a Service in the order of their names. If it has none, its legacy
        Endpoints as slices.

        A Service may have both: the control plane mirrors Endpoints into slices, and writes
        Endpoints besides slices.
        """
        slices = self._slices.get(service)
        if slices:
            return [slices[name] for name in sorted(slices)]
        legacy = self._find(Endpoints, service)
        return as_slices(legacy) if legacy is not None else ()

    def _matters(self, obj: Object) -> bool:
        return not isinstance(obj, EndpointSlice) or obj.address_type in _IP_SLICES

    def _find(self, kind: type[Kind], name: ObjectName) -> Kind | None:
        for objects in self._objects.values():
            found = objects.get((kind, name))
            if isinstance(found, kind):
                return found
        return None

    def _record_change(self, kind: type[Object], name: ObjectName, before: Object | None) -> None:
        after = self._find(kind, name)
        if after == before:
            return
        if kind is Service:
            self._index_addresses(name, before, after)
        if kind is Service or (kind is Endpoints and name not in self._slices):
            self._dirty.add(name)
        elif kind is EndpointSlice:
            self._remove_slice(before)
            self._add_slice(after)
        elif kind is Node:
            held = _all_addresses(after) if isinstance(after, Node) else ()
            self._changed_addresses |= self.hosts.put(node_host(name.name), held)
            if name.name == self.node.name:
                self._set_node(after)
        for changed in self._observers:
            changed(kind, name)

    def _index_addresses(
        self, name: ObjectName, before: Object | None, after: Object | None
    ) -> None:
        old = set(requested_addresses(before)) if isinstance(before, Service) else set[str]()
        new = set(requested_addresses(after)) if isinstance(after, Service) else set[str]()
        for address in old - new:
            names = self._services_by_address.get(address, set())
            names.discard(name)
            if not names:
                self._services_by_address.pop(address, None)
        for address in new - old:
            self._services_by_address.setdefault(address, set()).add(name)

    def _remove_slice(self, before: Object | None) -> None:
        if not isinstance(before, EndpointSlice) or before.service is None:
            return
        self._dirty.add(before.service)
        slices = self._slices.get(before.service, {})
        slices.pop(before.key, None)
        if not slices:
            self._slices.pop(before.service, None)

    def _add_slice(self, after: Object | None) -> None:
        if isinstance(after, EndpointSlice) and after.service is not None:
            self._dirty.add(after.service)
            self._slices.setdefault(after.service, {})[after.key] = after

    def _set_node(self, node: Object | None) -> None:
        before = self.node
        if isinstance(node, Node):
            self.node = NodeFacts.of(node)
            self.hosts.own = frozenset(_all_addresses(node))
        else:
            # The Node object is gone, but the machine and its pods are there. Without the networks
            # of its pods, they would count as clients from outside; without its addresses, the
            # NodePorts of --nodeport-addresses primary would be closed. kube-proxy's rules stay as
            # well.
            self.node = replace(before, known=False, deleting=False, taints=())
        # Topology hints name the zone, and loadBalancerSourceRanges may include the addresses.
        if (self.node.zone, self.node.addresses) != (before.zone, before.addresses):
            self._dirty |= self.service_names()


def _put_back(objects: dict[_Identity, Object], identity: _Identity, before: Object | None) -> None:
    if before is None:
        del objects[identity]
    else:
        objects[identity] = before


def requested_addresses(service: Service) -> Iterator[str]:
    """Addresses at which a Service asks to be reached, in canonical form, allowed or not."""
    spec = service.spec
    cluster = (spec.cluster_ip, *(spec.cluster_ips or ()))
    ingress = (each.ip for each in service.ingress)
    for text in (*cluster, *(spec.external_ips or ()), *ingress):
        address = parse_ip(text)
        if address is not None:
            yield address


def _endpoints(endpoint_slice: EndpointSlice) -> Iterator[str]:
    for each in endpoint_slice.endpoints or ():
        for text in each.addresses or ():
            address = parse_ip(text)
            if address is not None:
                yield address


def _all_addresses(node: Node) -> tuple[str, ...]:
    """All addresses of a Node, of whatever type. Host names may be IP addresses, too."""
    listed = node.status.addresses or ()
    return tuple(filter(None, (parse_ip(each.address) for each in listed)))


def _addresses(node: Node) -> tuple[str, ...]:
    listed = node.status.addresses or ()
    ordered = (each for kind in _ADDRESS_ORDER for each in listed if each.type == kind)
    return tuple(dict.fromkeys(filter(None, (parse_ip(each.address) for each in ordered))))
