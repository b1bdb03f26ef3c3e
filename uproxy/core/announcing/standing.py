"""Whether this node may announce an address, and where."""

from __future__ import annotations

from collections.abc import Mapping

from uproxy.core.announcing.reach import Chosen, Reach
from uproxy.core.announcing.step import OwnState
from uproxy.core.announcing.view import Announceable


class Standing:
    """What this node can do, and what the cluster wants."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.own = OwnState()
        self.reach = Reach({})
        self.wanted: Mapping[str, Announceable] | None = None
        """None as long as the cluster is not known."""

    def update(self, own: OwnState, wanted: Mapping[str, Announceable] | None) -> bool:
        """Take note of both. Returns whether something has changed."""
        changed = own != self.own or wanted is not self.wanted
        if own.interfaces != self.own.interfaces:
            self.reach = Reach(own.interfaces)
        self.own, self.wanted = own, wanted
        return changed

    def choose(self, each: Announceable) -> Chosen:
        """On which interface this node may announce an address, or why it may not."""
        refusal = each.reason or each.candidates.refusal(self.node)
        if refusal:
            return Chosen(reason=refusal)
        if self.own.draining:
            return Chosen(reason="uproxy on it is stopping")
        if each.address in self.own.unable:
            return Chosen(reason="its listeners are not open")
        return self.reach.choose(each.address, each.candidates.nodes[self.node].interfaces)

    def interfaces(self) -> Mapping[str, tuple[str, ...]]:
        """Those that have a carrier, as the Lease tells the others."""
        return {name: each.subnets for name, each in self.own.interfaces.items() if each.carrier}
