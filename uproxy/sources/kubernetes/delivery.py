"""From the events of one resource to calls of a sink."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final, Generic, TypeVar

import msgspec

from uproxy.core.brief import brief_name
from uproxy.core.cluster.objects import ApiObject
from uproxy.core.report.status import ObjectStatus
from uproxy.sources.kubernetes.mirror import Mirror
from uproxy.sources.kubernetes.resources import Resource
from uproxy.sources.kubernetes.watch_format import INITIAL_EVENTS_END, Event, Metadata
from uproxy.sources.sink import SinkOf

T = TypeVar("T", bound=ApiObject)

log = logging.getLogger(__name__)

_SLICE: Final = 0.005
"""Seconds of decoding after which the event loop may run other tasks."""
_MOST_UNKNOWN: Final = 10
"""Unknown types of events that are logged."""


class TimeSlice:
    """Lets other tasks run now and then during a long sequence of short steps."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def yield_if_used_up(self) -> None:
        if time.monotonic() - self._began > _SLICE:
            await asyncio.sleep(0)
            self._began = time.monotonic()


class Delivery(Generic[T]):
    """Keeps the server's objects of one resource, and delivers what is new to a sink."""

    def __init__(self, resource: Resource[T]) -> None:
        self.initial = False
        """Whether the events of the watch still belong to the list that it begins with."""
        self._resource = resource
        self._mirror = Mirror(resource.kind, resource.reduce)
        self._errors: tuple[ObjectStatus, ...] = ()
        self._unknown: set[str] = set()

    @property
    def version(self) -> str:
        """The resourceVersion from which a watch can be resumed."""
        return self._mirror.version

    @property
    def empty(self) -> bool:
        """Whether no object is known."""
        return not self._mirror.count

    def begin_list(self) -> None:
        """A list begins."""
        self._mirror.begin_list()

    def add_listed(self, raw: msgspec.Raw) -> None:
        """An object of the list. Raises MalformedAnswer where there are too many."""
        self._mirror.add_listed(raw)

    def take(self, event: Event, sink: SinkOf[T]) -> None:
        """A change, or a part of the list. Raises MalformedAnswer."""
        if event.type not in ("ADDED", "MODIFIED", "DELETED"):
            self._log_unknown(event.type)
        elif not self.initial:
            self._change(event, sink)
        elif event.type == "DELETED":
            self._mirror.drop_listed(event.obj)
        else:
            self._mirror.add_listed(event.obj)

    def take_bookmark(self, event: Event) -> Metadata | None:
        """A bookmark. Returns its metadata if it completes the list."""
        metadata = self._mirror.apply_bookmark(event.obj)
        if not self.initial or metadata is None:
            return None
        ends = (metadata.annotations or {}).get(INITIAL_EVENTS_END) == "true"
        return metadata if ends else None

    async def complete(self, sink: SinkOf[T], version: str) -> None:
        """The list is complete. Raises MalformedAnswer.

        What is new in it is applied in small portions before `replace`, because taking in the list
        of a large cluster in one call would hold up the event loop for 0.2 s.
        """
        source, resource = self._resource.source, self._resource
        objects, changed = self._mirror.finish_list(version)
        self.initial = False
        time_slice = TimeSlice()
        for obj in changed:
            sink.apply(source, obj)
            await time_slice.yield_if_used_up()
        sink.replace(source, objects)
        self._report_errors(sink)
        if resource.wanted not in ("", *(each.metadata.name for each in objects)):
            log.warning("%s", resource.if_missing)
        log.debug("%s: %d listed, version %s", source, len(objects), version)

    def none_exists(self, sink: SinkOf[T]) -> None:
        """There are no objects of this kind."""
        self._mirror.clear()
        self.initial = False
        sink.replace(self._resource.source, ())
        self._report_errors(sink)

    def _change(self, event: Event, sink: SinkOf[T]) -> None:
        source = self._resource.source
        if event.type == "DELETED":
            deleted = self._mirror.apply_deletion(event.obj)
            if deleted is not None:
                sink.remove(source, self._resource.kind, deleted.name)
        else:
            obj = self._mirror.apply_change(event.obj)
            if obj is not None:
                sink.apply(source, obj)
        self._report_errors(sink)

    def _report_errors(self, sink: SinkOf[T]) -> None:
        errors = self._mirror.errors
        if errors != self._errors:
            self._errors = errors
            sink.report_errors(self._resource.source, errors)

    def _log_unknown(self, kind: str) -> None:
        if kind not in self._unknown and len(self._unknown) < _MOST_UNKNOWN:
            self._unknown.add(kind)
            log.warning("%s: unknown event type %r", self._resource.source, brief_name(kind))
