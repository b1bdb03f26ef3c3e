"""Models of everything around the control process, and the log of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import Mock, patch

import uproxy.control.sync_metrics
import uproxy.core.routing.build
from tests.faults.injection import INJECTED, Bug, FaultInjector
from tests.faults.kernel import Kernel
from tests.faults.machine import Disk, HttpServers, Surroundings, Transparency, bridge_calls
from tests.faults.objects import POISON
from tests.faults.processes import Processes
from tests.faults.sockets import socket_calls
from uproxy.control.client_ip_preservation import ClientAddressCalls
from uproxy.control.cluster_client import SnapshotFiles
from uproxy.control.environment import Environment
from uproxy.core.cluster.objects import Object, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.sources.last_known.snapshot import load, save

Note = Callable[[str, BaseException | None], None]
"""Takes what was logged, and the exception with it."""


def environment(
    kernel: Kernel, processes: Processes, around: Surroundings, http: HttpServers
) -> Environment:
    """Models of everything that the control process asks for something."""
    rules = Transparency(kernel)
    disk = Disk(kernel, save, load)
    return Environment(
        sockets=socket_calls(kernel),
        popen=processes.spawn,
        machine=around.machine_calls(),
        claims=around.claim_calls(),
        client_addresses=ClientAddressCalls(
            new_rules=lambda: rules,  # type: ignore[arg-type, return-value]
            remove_rules=rules.remove,
            remove_leftovers=rules.remove,
            take_lock=around.take_lock,
            bridge=bridge_calls(kernel),
        ),
        new_health_server=http.server,  # type: ignore[arg-type]
        snapshots=SnapshotFiles(disk.load, disk.save),
        garbage=Mock(),
        find_other_proxies=tuple,
        find_port_holders=lambda ports: {},
        service_proxy_at=lambda host, port: "",
    )


@contextmanager
def mistakes(faults: FaultInjector) -> Iterator[None]:
    """Functions of uproxy that are wrong now and then, which no argument can bring about."""
    with (
        patch("uproxy.core.routing.build.derive", _derive(faults)),
        patch("uproxy.control.sync_metrics.SyncMetrics.applying", _applying(faults)),
    ):
        yield


def _derive(faults: FaultInjector) -> Callable[..., Any]:
    """One that fails for one Service."""

    def derive(service: Service, *arguments: Any) -> Any:
        if service.metadata.name == POISON and faults.happens("derive"):
            raise Bug("derive")
        return _REAL_DERIVE(service, *arguments)

    return derive


def _applying(faults: FaultInjector) -> Callable[..., Any]:
    """One that fails for the objects of one Service."""
    real = uproxy.control.sync_metrics.SyncMetrics.applying

    def applying(
        syncs: uproxy.control.sync_metrics.SyncMetrics, state: ClusterState, obj: Object
    ) -> None:
        if obj.key.name.startswith(POISON) and faults.happens("derive"):
            raise Bug("taking in")
        real(syncs, state, obj)

    return applying


_REAL_DERIVE: Final[Any] = vars(uproxy.core.routing.build)["derive"]


@contextmanager
def logged(tell: Callable[[str], None], note: Note) -> Iterator[None]:
    """`tell` is called with what uproxy logs, and `note` with the exceptions that are logged."""
    log, handler = logging.getLogger("uproxy"), _LogHandler(tell, note)
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class _LogHandler(logging.Handler):
    def __init__(self, tell: Callable[[str], None], note: Note) -> None:
        super().__init__()
        self._tell = tell
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self._tell(f"log {record.levelname} {text[:300]}")
        if record.exc_info and record.exc_info[1] is not None:
            self._note(text, record.exc_info[1])


def was_injected(error: BaseException) -> bool:
    """Whether an exception, or what has led to it, was injected by a test."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            return all(map(was_injected, seen.exceptions))
        if isinstance(seen, Bug) or INJECTED in getattr(seen, "__notes__", ()):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
