"""Whether the cluster's Node objects allow this node to take traffic of load balancers."""

from __future__ import annotations

from typing import Final

from uproxy.core.announcing.advertisements import EVERYWHERE
from uproxy.core.announcing.candidates import candidates
from uproxy.core.announcing.view import Candidates, ClusterNode
from uproxy.core.cluster.objects import Node, Object, ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.health import not_eligible

_NO_NODES: Final = Candidates(pool="", otherwise="")


class NodeEligibility:
    """Follows the Nodes. Where there are none, as with manifests, nothing speaks against it."""

    def __init__(self, state: ClusterState, node: str) -> None:
        self._state = state
        self._node = node
        self._nodes: dict[str, ClusterNode] = {}
        self._found: Candidates | None = _NO_NODES
        """None: the Nodes have changed since."""

    def object_changed(self, kind: type[Object], name: ObjectName) -> bool:
        """An object has come, changed or gone. Returns whether that matters here."""
        if kind is not Node:
            return False
        found = self._state.node_object(name.name)
        before = self._nodes.pop(name.name, None)
        after = None
        if found is not None:
            after = ClusterNode(found.metadata.labels or {}, found.network_unavailable)
            self._nodes[name.name] = after
        if before != after:
            self._found = None
        return before != after or name.name == self._node

    @property
    def refusal(self) -> str:
        """Why this node may take no traffic; "" if it may. A Node that is being removed may not, as
        /healthz says to load balancers outside of the cluster."""
        for reason in not_eligible(self._state.node, watched=False, draining=False):
            return reason.text
        if self._found is None:
            self._found = candidates("", (EVERYWHERE,), self._nodes) if self._nodes else _NO_NODES
        return self._found.refusal(self._node)
