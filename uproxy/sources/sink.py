"""The interface through which sources deliver objects to the rest of the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, TypeVar

from uproxy.core.cluster.objects import ApiObject, Object, ObjectName
from uproxy.core.report.status import ObjectStatus

T_contra = TypeVar("T_contra", bound=ApiObject, contravariant=True)


class SinkOf(Protocol[T_contra]):
    """Receives objects from several sources, which have names. Called on the event loop only."""

    def replace(self, source: str, objects: Sequence[T_contra]) -> None:
        """All objects of the source, in place of those that it had before. From the first call on
        the source counts as listed."""

    def apply(self, source: str, obj: T_contra) -> None:
        """A new object, or a new version of an object."""

    def remove(self, source: str, kind: type[T_contra], key: ObjectName) -> None:
        """An object was deleted."""

    def report_errors(self, source: str, errors: Sequence[ObjectStatus]) -> None:
        """All objects and files that the source cannot use at present, in place of those that it
        reported before."""


Sink: TypeAlias = SinkOf[Object]
"""One that takes whatever decides about traffic."""
