"""Which addresses are to be announced, as the objects of the cluster say at this moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from uproxy.core.allocation.pools import Pool
from uproxy.core.announcing.advertisements import Advertisement
from uproxy.core.announcing.announceables import Announceables
from uproxy.core.announcing.view import Announceable, ClusterNode
from uproxy.core.cluster.objects import EndpointSlice, Node, Object, ObjectName, Service
from uproxy.core.cluster.state import ClusterState


class WantedAddresses:
    """Follows Services, their endpoints and the Nodes in the state of the cluster. A change is only
    noted until `current` is called, as a rollout changes endpoints many times a second."""

    def __init__(
        self,
        state: ClusterState,
        pools: Callable[[], Sequence[Pool]],
        advertisements: Callable[[], Sequence[Advertisement]],
        *,
        own_node: str = "",
    ) -> None:
        """`own_node`: the name of this node, where it may announce although no Node object says
        that there is such a node; manifests need not have any."""
        self._state = state
        self._pools = pools
        self._advertisements = advertisements
        self._announceables = Announceables()
        self._changed: set[ObjectName] = set()
        self._changed_nodes: set[str] = set()
        self._service_of: dict[ObjectName, ObjectName] = {}
        """By EndpointSlice: which Service it was part of, as one that is gone no longer says so."""
        self._own_node = own_node
        self._nodes: Mapping[str, ClusterNode] = _by_itself(own_node)

    def object_changed(self, kind: type[Object], name: ObjectName) -> None:
        """See Part."""
        if kind is Service:
            self._changed.add(name)
        elif kind is EndpointSlice:
            self._slice_changed(name)
        elif kind is Node:
            self._changed_nodes.add(name.name)
        else:
            self._changed.add(name)  # Endpoints have the name of their Service.

    def current(self) -> Mapping[str, Announceable]:
        """By address; the same object as long as nothing has changed."""
        changed, self._changed = self._changed, set()
        for name in changed:
            service = self._state.service(name)
            if service is None:
                self._announceables.remove(name)
            else:
                self._announceables.put(service, self._state.slices_of(name))
        self._apply_nodes()
        self._announceables.configure(self._pools(), self._advertisements(), self._nodes)
        return self._announceables.current()

    def _slice_changed(self, name: ObjectName) -> None:
        before = self._service_of.pop(name, None)
        found = self._state.endpoint_slice(name)
        after = found.service if found is not None else None
        if after is not None:
            self._service_of[name] = after
        self._changed.update(each for each in (before, after) if each is not None)

    def _apply_nodes(self) -> None:
        changed, self._changed_nodes = self._changed_nodes, set()
        if not changed:
            return
        nodes = dict(self._nodes)
        for name in changed:
            found = self._state.node_object(name)
            if found is None:
                nodes.pop(name, None)
            else:
                nodes[name] = ClusterNode(
                    found.metadata.labels or {}, found.network_unavailable, found.leaving
                )
        self._nodes = {**_by_itself(self._own_node), **nodes}


def _by_itself(node: str) -> Mapping[str, ClusterNode]:
    """This node, as it is without a Node object."""
    return {node: ClusterNode({})} if node else {}
