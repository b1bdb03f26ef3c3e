"""Events about addresses that no node may announce, for a reason that people can change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from uproxy.core.announcing.view import Announceable
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.problems import Event, Reference

FAILED: Final = "announceFailed"
"""The reason that MetalLB gives."""
ACTION: Final = "Announce"
"""Of all Events about announcing."""
_PASSING: Final = ("no endpoint of", "no node that may announce it has a ready endpoint of")
"""How reasons begin that pass when pods become ready. Each new Service has one for a while."""


class Refusals:
    """Every node finds the same reasons, and one of them is to tell them: that which leads."""

    def __init__(self) -> None:
        self._told: set[tuple[ObjectName, str]] = set()
        self._seen: tuple[object, bool] = (None, False)

    def new(self, wanted: Mapping[str, Announceable], *, leading: bool) -> Sequence[Event]:
        """The Events that are to be sent now. `wanted` is the same object as long as nothing has
        changed."""
        if self._seen[0] is wanted and self._seen[1] == leading:
            return ()
        self._seen = (wanted, leading)
        true = {
            (name, f"{each.address} is not announced: {each.reason}")
            for each in wanted.values()
            if each.reason and not each.reason.startswith(_PASSING)
            for name in each.services
        }
        if not leading:
            self._told &= true
            return ()
        new, self._told = sorted(true - self._told), true
        return [
            Event(Reference("Service", *name), "Warning", FAILED, ACTION, note)
            for name, note in new
        ]
