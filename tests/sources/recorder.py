"""A sink that records its calls, and lets tests wait for what they expect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.report.status import ObjectStatus

_DEADLINE = 20.0
"""Seconds; generous, for machines that are busy."""


class Recorder:
    """What a source has delivered: the state that results, and the calls one by one."""

    def __init__(self) -> None:
        self.objects: dict[tuple[type[Object], ObjectName], Object] = {}
        self.errors: list[str] = []
        self.calls: list[str] = []
        self._changed = asyncio.Event()

    def replace(self, source: str, objects: Sequence[Object]) -> None:
        self.objects = {(type(obj), obj.key): obj for obj in objects}
        assert len(self.objects) == len(objects), "an object was delivered twice"
        self._note(f"replace {len(objects)}")

    def apply(self, source: str, obj: Object) -> None:
        assert self.objects.get((type(obj), obj.key)) != obj, "not a change"
        self.objects[type(obj), obj.key] = obj
        self._note(f"apply {obj.key}")

    def remove(self, source: str, kind: type[Object], key: ObjectName) -> None:
        del self.objects[kind, key]
        self._note(f"remove {key}")

    def report_errors(self, source: str, errors: Sequence[ObjectStatus]) -> None:
        self.errors = [f"{each.where}: {each.field}: {each.reason}" for each in errors]
        self._note("report_errors")

    def names(self) -> set[str]:
        return {name.name for _, name in self.objects}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to be so. Fails after a deadline with what there is."""
        try:
            async with asyncio.timeout(_DEADLINE):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not in time; {self.calls=} {self.errors=}") from None

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self._changed.set()
