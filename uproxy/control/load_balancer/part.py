"""What the parts of the load balancer have in common."""

from __future__ import annotations

from typing import Protocol

from uproxy.core.cluster.objects import Object, ObjectName


class Task(Protocol):
    """Something that goes on as long as the program runs."""

    @property
    def name(self) -> str:
        """For messages about it."""

    async def run(self) -> None:
        """Until cancelled. After an unexpected error it is called again."""


class Part(Task, Protocol):
    """A task that is told what happens in the rest of the program. `changed` and
    `object_changed` only take notes and wake the task up: they are called in the middle of other
    work, and must not raise."""

    def object_changed(self, kind: type[Object], name: ObjectName) -> None:
        """An object of the cluster has come, changed or gone."""

    def changed(self) -> None:
        """A sync is over, or something about this machine has changed."""

    async def release(self) -> None:
        """The program is going to stop: leave everything to others, at once. `run` may still be
        under way, and has to do nothing more."""
