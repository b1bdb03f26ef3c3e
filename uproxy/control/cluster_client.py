"""Everything that this program exchanges with its cluster, except for traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from uproxy import __version__
from uproxy.apiserver.request import Request
from uproxy.config.settings import Config
from uproxy.control.event_sender import EventSender
from uproxy.control.reconciler import Reconciler
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.core.cluster.objects import EndpointSlice, Node, Object, ObjectName, Service
from uproxy.core.report.event_log import EventRequest
from uproxy.core.report.problems import Event, Problems, Reference, starting
from uproxy.host.threads import run_to_completion
from uproxy.sources.kubernetes.resources import NODE, SERVICES, SLICES
from uproxy.sources.kubernetes.source import KubernetesSource
from uproxy.sources.last_known.fallback import LastKnownFallback, Load
from uproxy.sources.last_known.snapshot import Snapshot, load, save

_MAX_EVENT: Final = 1024 * 1024
"""Bytes of an answer to an Event; it is the Event."""
_SOURCES: Final[dict[type[Object], str]] = {Service: SERVICES, EndpointSlice: SLICES, Node: NODE}


class SnapshotFiles(NamedTuple):
    """How the last-known state is read and written."""

    load: Load = load
    save: Callable[[Path, Snapshot], None] = save


_FILES: Final = SnapshotFiles()


class ClusterClient:
    """Brings the cluster's objects to the reconciler, keeps a copy of them in `state_dir`, and
    tells the cluster what goes wrong here."""

    def __init__(
        self,
        source: KubernetesSource,
        config: Config,
        reconciler: Reconciler,
        supervisor: TaskSupervisor,
        *,
        problems: Callable[[], Problems | None],
        files: SnapshotFiles = _FILES,
    ) -> None:
        """`problems`: what the cluster is told of; see EventSender."""
        self._source = source
        self._supervisor = supervisor
        self._node = config.node_name
        self._reconciler = reconciler
        self._fallback: LastKnownFallback | None = None
        if config.state_dir is not None:
            self._fallback = LastKnownFallback(
                reconciler.sink,
                sources=_SOURCES,
                directory=config.state_dir,
                node=config.node_name,
                objects=reconciler.state.all_objects,
                in_thread=run_to_completion,
                load=files.load,
                save=files.save,
            )
        self._events = EventSender(
            self._send, node=config.node_name, problems=problems, uid=self._uid
        )

    @property
    def notes(self) -> Sequence[str]:
        """What people should know about where the objects come from."""
        return self._fallback.notes if self._fallback is not None else ()

    def changed(self) -> None:
        """Something may have gone wrong, or may be in order again."""
        self._events.changed()

    def send(self, events: Iterable[Event]) -> None:
        """Send Events about something that has happened."""
        self._events.send(events)

    def synced(self) -> bool:
        """A sync is over. Returns whether addresses of the API server have come or gone with it."""
        self.changed()
        return self._source.api.learn(self._reconciler.state.api_servers)

    async def run(self) -> None:
        """Do all of this, until cancelled."""
        self._events.send([starting(self._node, __version__)])
        sink = self._fallback or self._reconciler.sink
        send = self._supervisor.run("Event sender", self._events.run)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send, name="events")
            if self._fallback is not None:
                keep = self._supervisor.run("last-known state saver", self._fallback.run)
                tasks.create_task(keep, name="last-known state")
            tasks.create_task(self._source.run(sink), name="source")

    async def _send(self, request: EventRequest) -> int:
        sent = Request(
            request.method, request.path, body=request.body, content_type=request.content_type
        )
        async with self._source.api.send(sent) as answer:
            await answer.read(_MAX_EVENT)
            return answer.status

    def _uid(self, regarding: Reference) -> str | None:
        if regarding.kind == "Node":
            # As kubelet and kube-proxy do it, and as `kubectl describe node` searches.
            return regarding.name
        service = self._reconciler.state.service(ObjectName(regarding.namespace, regarding.name))
        return service.metadata.uid if service is not None else None
