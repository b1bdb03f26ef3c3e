"""From the events of one resource to what a sink is told."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

import msgspec

from uproxy.core.brief import brief_name
from uproxy.core.report.status import ObjectStatus
from uproxy.sources.kubernetes.mirror import Mirror, Resource
from uproxy.sources.kubernetes.watch_format import INITIAL_EVENTS_END, Event, Metadata
from uproxy.sources.sink import Sink

log = logging.getLogger(__name__)

_SLICE: Final = 0.005
"""Seconds of decoding before the event loop gets its turn."""
_UNKNOWN: Final = 10
"""Types of events that are told."""


class TimeSlice:
    """Gives the event loop its turn now and then in a long run of short steps."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def yield_if_used_up(self) -> None:
        if time.monotonic() - self._began > _SLICE:
            await asyncio.sleep(0)
            self._began = time.monotonic()


class Delivery:
    """Keeps what the server has of one resource, and delivers what is new."""

    def __init__(self, resource: Resource) -> None:
        self.initial = False
        """Whether events stand for a list, until it is complete."""
        self._resource = resource
        self._mirror = Mirror(resource.kind, resource.reduced)
        self._complaints: tuple[ObjectStatus, ...] = ()
        self._unknown: set[str] = set()

    @property
    def version(self) -> str:
        """Where a watch can go on."""
        return self._mirror.version

    def begin(self) -> None:
        """A list begins."""
        self._mirror.begin()

    def list(self, raw: msgspec.Raw) -> None:
        """An object of it. Raises MalformedAnswer where there are too many."""
        self._mirror.list(raw)

    def take(self, event: Event, sink: Sink) -> None:
        """A change, or a part of the list. Raises MalformedAnswer."""
        if event.type not in ("ADDED", "MODIFIED", "DELETED"):
            self._note(event.type)
        elif self.initial:
            (self._mirror.unlist if event.type == "DELETED" else self._mirror.list)(event.obj)
        else:
            self._change(event, sink)

    def bookmark(self, event: Event) -> Metadata | None:
        """A bookmark; its metadata where it completes the list."""
        metadata = self._mirror.bookmark(event.obj)
        if not self.initial or metadata is None:
            return None
        ends = (metadata.annotations or {}).get(INITIAL_EVENTS_END) == "true"
        return metadata if ends else None

    async def complete(self, sink: Sink, version: str) -> None:
        """The list is complete. First what is new in it is delivered, in small portions, as the
        list of a large cluster would hold up the event loop for 0.2 s. Raises MalformedAnswer."""
        source, resource = self._resource.source, self._resource
        objects, changed = self._mirror.finish(version)
        self.initial = False
        time_slice = TimeSlice()
        for obj in changed:
            sink.apply(source, obj)
            await time_slice.yield_if_used_up()
        sink.replace(source, objects)
        self._complain(sink)
        if resource.wanted not in ("", *(each.metadata.name for each in objects)):
            log.warning("%s", resource.none)
        log.debug("%s: %d listed, version %s", source, len(objects), version)

    def _change(self, event: Event, sink: Sink) -> None:
        source = self._resource.source
        if event.type == "DELETED":
            gone = self._mirror.delete(event.obj)
            if gone is not None:
                sink.remove(source, self._resource.kind, gone.name)
        else:
            obj = self._mirror.change(event.obj)
            if obj is not None:
                sink.apply(source, obj)
        self._complain(sink)

    def _complain(self, sink: Sink) -> None:
        complaints = self._mirror.complaints
        if complaints != self._complaints:
            self._complaints = complaints
            sink.complain(self._resource.source, complaints)

    def _note(self, kind: str) -> None:
        if kind not in self._unknown and len(self._unknown) < _UNKNOWN:
            self._unknown.add(kind)
            log.warning("%s: unknown event type %r", self._resource.source, brief_name(kind))
