"""Models in the places of what they stand for, and an ear for what is logged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final
from unittest.mock import Mock, patch

import uproxy.control.sync_metrics
import uproxy.core.routing.build
from tests.faults.api import FakeApi
from tests.faults.installed import installed
from tests.faults.kernel import Kernel
from tests.faults.machine import Disk, HttpServers, Surroundings, Transparency
from tests.faults.objects import NODE, POISON
from tests.faults.processes import Processes
from tests.faults.weather import MADE_UP, Bug, Weather
from uproxy.core.cluster.objects import Object, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.sources.kubernetes.source import KubernetesSource
from uproxy.sources.last_known.fallback import LastKnownFallback
from uproxy.sources.last_known.snapshot import load, save

Note = Callable[[str, BaseException | None], None]
"""Takes what was logged, and the exception with it."""


@contextmanager
def models(
    kernel: Kernel, processes: Processes, around: Surroundings, http: HttpServers, api: FakeApi
) -> Iterator[None]:
    """All of them; time is the kernel's clock."""
    disk = Disk(kernel, save, load)
    transparency = Transparency(kernel)
    replaced: dict[str, object] = {
        "subprocess.Popen": processes.spawn,
        "uproxy.control.daemon.gc": Mock(),
        "uproxy.control.startup._cluster": lambda _: KubernetesSource(
            api, node_name=NODE, clock=kernel.clock.monotonic
        ),
        "uproxy.control.client_ip_preservation.ClientAddressRules": lambda: transparency,
        "uproxy.control.client_ip_preservation.remove_client_address_rules": transparency.remove,
        "uproxy.control.client_ip_preservation.remove_rules": transparency.remove,
        "uproxy.control.client_ip_preservation.take_lock": around.take_lock,
        "uproxy.control.machine.read_interfaces": around.read_interfaces,
        "uproxy.control.machine.gateways": around.gateways,
        "uproxy.control.machine.name_servers": around.name_servers,
        "uproxy.control.machine.resolve_hosts": around.resolve_hosts,
        "uproxy.control.machine.AddressMonitor": around.monitor,
        "uproxy.host.claim_routes.add_claims": around.add_claims,
        "uproxy.host.claim_routes.release_claims": around.release_claims,
        "uproxy.host.claim_routes.held_claims": around.held_claims,
        "uproxy.host.claim_routes.permission_error": around.permission_error,
        "uproxy.host.claims.take_lock": around.take_lock,
        "uproxy.http.health.HttpServer": http.server,
        "uproxy.control.cluster_client.LastKnownFallback": partial(
            LastKnownFallback, load=disk.load, save=disk.save
        ),
        "uproxy.core.routing.build.derive": _derive(kernel.weather),
        "uproxy.control.sync_metrics.SyncMetrics.applying": _applying(kernel.weather),
    }
    with ExitStack() as stack:
        stack.enter_context(installed(kernel))
        stack.enter_context(kernel.clock.instead_of_time())
        for name, model in replaced.items():
            stack.enter_context(patch(name, model))
        yield


def _derive(weather: Weather) -> Callable[..., Any]:
    """One that fails for one Service."""

    def derive(service: Service, *arguments: Any) -> Any:
        if service.metadata.name == POISON and weather.strikes("derive"):
            raise Bug("derive")
        return _REAL_DERIVE(service, *arguments)

    return derive


def _applying(weather: Weather) -> Callable[..., Any]:
    """One that fails for the objects of one Service."""
    real = uproxy.control.sync_metrics.SyncMetrics.applying

    def applying(
        syncs: uproxy.control.sync_metrics.SyncMetrics, state: ClusterState, obj: Object
    ) -> None:
        if obj.key.name.startswith(POISON) and weather.strikes("derive"):
            raise Bug("taking in")
        real(syncs, state, obj)

    return applying


_REAL_DERIVE: Final[Any] = vars(uproxy.core.routing.build)["derive"]


@contextmanager
def heard(tell: Callable[[str], None], note: Note) -> Iterator[None]:
    """What uproxy logs is told, and what comes with an exception is noted, too."""
    log, ear = logging.getLogger("uproxy"), _Ear(tell, note)
    level, propagate = log.level, log.propagate
    log.addHandler(ear)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(ear)
        log.setLevel(level)
        log.propagate = propagate


class _Ear(logging.Handler):
    def __init__(self, tell: Callable[[str], None], note: Note) -> None:
        super().__init__()
        self._tell = tell
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self._tell(f"log {record.levelname} {text[:300]}")
        if record.exc_info and record.exc_info[1] is not None:
            self._note(text, record.exc_info[1])


def was_asked_for(error: BaseException) -> bool:
    """Whether an exception, or what has led to it, was made up."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            return all(map(was_asked_for, seen.exceptions))
        if isinstance(seen, Bug) or MADE_UP in getattr(seen, "__notes__", ()):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
