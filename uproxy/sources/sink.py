"""Where sources deliver what they know: the one seam between them and the rest of the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.report.status import ObjectStatus


class Sink(Protocol):
    """Receives objects from several sources, told apart by name. Called on the event loop only."""

    def replace(self, source: str, objects: Sequence[Object]) -> None:
        """All that the source has, instead of all it had. From the first call it is synced."""

    def apply(self, source: str, obj: Object) -> None:
        """A new object, or a new version of one."""

    def remove(self, source: str, kind: type[Object], key: ObjectName) -> None:
        """An object is gone."""

    def complain(self, source: str, complaints: Sequence[ObjectStatus]) -> None:
        """All that the source cannot use at present, instead of what it said earlier."""
