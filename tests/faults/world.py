"""A control process in a world where everything may fail, and what must be true of it.

Time, chance, the kernel, the API server, worker processes and netlink are models; everything in
between is the program itself, put together as always. After a while of bad weather all is well
again, and then everything has to be as it should be within a bounded time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import Mock, patch

import uproxy.core.routing
import uproxy.sources.remembering
import uproxy.syncs
from tests.faults.api import Cluster, FakeApi
from tests.faults.clock import Clock, VirtualLoop
from tests.faults.installed import installed
from tests.faults.kernel import Kernel
from tests.faults.machine import Disk, HttpServers, Surroundings
from tests.faults.objects import NODE, POISON, node, some_service, some_slice
from tests.faults.processes import Processes
from tests.faults.weather import MADE_UP, NOT_YET, Bug, Weather
from uproxy.config import Config
from uproxy.core.decode import DecodeError, from_json
from uproxy.core.objects import EndpointSlice, Node, Object, Service
from uproxy.core.overview import service_statuses
from uproxy.core.routing import RoutingTable, build
from uproxy.core.state import ClusterState
from uproxy.daemon import Daemon
from uproxy.sources.kubernetes import Kubernetes
from uproxy.sources.reflector import NODE as NODES
from uproxy.sources.reflector import SERVICES, SLICES, SOURCES
from uproxy.startup import running

BOUND: Final = 700.0
"""Seconds, of the run's own time, within which everything has to be well after bad weather. The
longest wait is for a watch over which nothing comes any more."""
_STEADY: Final = 3.0
"""Seconds that it has to stay well."""
_KINDS: Final[dict[str, tuple[str, type[Object]]]] = {
    "services": (SERVICES, Service),
    "endpointslices": (SLICES, EndpointSlice),
    "nodes": (NODES, Node),
}
_MODELS: Final = (Bug, TimeoutError)


class Broken(AssertionError):
    """Something is not as it must be."""


class World:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.trace: list[str] = []
        self.clock = Clock()
        self.rng = random.Random(f"{seed} events")
        self.weather = Weather(random.Random(f"{seed} weather"))
        self.kernel = Kernel(self.clock, self.weather, self.tell)
        self.processes = Processes(self.kernel, self.weather, random.Random(f"{seed} workers"))
        self.surroundings = Surroundings(self.kernel, self.weather)
        self.http = HttpServers(self.kernel, self.weather)
        self.cluster = Cluster()
        self.api = FakeApi(self.cluster, self.weather, random.Random(f"{seed} api"))
        self.unexpected: list[str] = []
        """Exceptions that nobody has asked for."""

    def tell(self, line: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.clock.passed:9.3f}  {line}")

    def run(self) -> None:
        """Raises Broken, or whatever else is wrong."""
        random.seed(self.seed)

        def new_loop() -> VirtualLoop:
            rng = random.Random(f"{self.seed} threads")
            loop = VirtualLoop(self.clock, rng, self.kernel.readiness)
            loop.set_exception_handler(self._unhandled)
            return loop

        with (
            tempfile.TemporaryDirectory() as directory,
            self._models(Path(directory)),
            asyncio.Runner(loop_factory=new_loop) as runner,
        ):
            runner.run(self._main(Path(directory)))
        self._check_end()

    async def _main(self, directory: Path) -> None:
        config = Config(
            node_name=NODE,
            external_ip_cidrs=("203.0.113.0/24",),
            preserve_client_ip="never",
            healthz_address=None,
            metrics_address=None,
            workers=2,
            drain_timeout=3.0,
            state_dir=directory,
        )
        self.cluster.put("nodes", node(self.rng))
        for _ in range(6):
            self._change_cluster()
        if self.rng.random() < 0.5:
            self._change_weather()
        async with running(config) as daemon:
            await self._storm()
            self._calm()
            await self._recovery(daemon)
            self.tell("drain")
            await daemon.drain()
        if self.processes.living:
            raise Broken(f"workers are left: {self.processes.living}")

    async def _storm(self) -> None:
        """Changes and faults, for about a minute."""
        for _ in range(self.rng.randrange(10, 40)):
            await asyncio.sleep(self.rng.choice((0.0, 0.01, 0.3, 1.0, 3.0, 8.0)))
            what = self.rng.random()
            if what < 0.2:
                self._change_weather()
            elif what < 0.4:
                self._change_machine()
            else:
                self._change_cluster()

    def _change_weather(self) -> None:
        self.weather.clear()
        if self.rng.random() < 0.7:
            self.tell(f"weather: {self.weather.storm()}")
        else:
            self.tell("weather: fair")

    def _change_machine(self) -> None:
        kernel = self.kernel
        match self.rng.randrange(5):
            case 0:
                address = self.rng.choice(("192.0.2.1", "192.0.2.77", "203.0.113.2"))
                kernel.addresses ^= {address}
                self.surroundings.changed()
                self.tell(f"address {address} {'comes' if address in kernel.addresses else 'goes'}")
            case 1:
                port = self.rng.choice((80, 81, 30000, 30001))
                kernel.taken ^= {(socket.SOCK_STREAM, port)}
                self.tell(f"port {port} changes hands")
            case 2 if "limit" not in NOT_YET:
                kernel.control.limit = self.rng.choice((24, 60, 250, 1024))
                self.tell(f"{kernel.control.limit} descriptors")
            case 3 if self.processes.living:
                worker = self.rng.choice(self.processes.living)
                worker.end(self.rng.choice((-9, -11, 1, 0)))
            case _ if self.processes.living and "hang" not in NOT_YET:
                worker = self.rng.choice(self.processes.living)
                worker.hung = True
                self.tell(f"worker {worker.pid} hangs")

    def _change_cluster(self) -> None:
        match self.rng.randrange(10):
            case 0 if len(self.cluster.objects) > 4:
                keys = [key for key in self.cluster.objects if key[0] != "nodes"]
                key = self.rng.choice(keys)
                self.cluster.drop(key)
                self.tell(f"{key} is deleted")
                return
            case 1:
                resource, obj = "nodes", node(self.rng, self.rng.choice((NODE, "there")))
            case 2 | 3 | 4 | 5:
                resource, obj = "endpointslices", some_slice(self.rng)
            case _:
                resource, obj = "services", some_service(self.rng)
        self.cluster.put(resource, obj)
        self.tell(f"{resource} {json.dumps(obj)[:300]}")

    def _calm(self) -> None:
        """Nothing fails any more, and everything in the cluster is as it should be."""
        self.tell("calm")
        self.weather.clear()
        self.kernel.taken.clear()
        self.kernel.control.limit = 1024
        self.kernel.addresses |= {"192.0.2.1"}
        self.surroundings.changed()
        for key, obj in list(self.cluster.objects.items()):
            if _decoded(key[0], obj) is None:
                self.cluster.drop(key)

    async def _recovery(self, daemon: Daemon) -> None:
        loop = asyncio.get_running_loop()
        until, well_since = loop.time() + BOUND, None
        while True:
            problems = list(self._problems(daemon))
            if problems:
                well_since = None
            elif well_since is None:
                well_since = loop.time()
                self.tell("all is well")
            elif loop.time() - well_since > _STEADY:
                return
            if loop.time() > until:
                raise Broken("\n".join(problems) or "now well, now not")
            await asyncio.sleep(0.5)

    def _problems(self, daemon: Daemon) -> Iterator[str]:
        """What is not as it should be."""
        yield from self._reasons(daemon)
        expected = self._expected(daemon)
        table = daemon.reconciler.table
        if table.routes != expected.routes:
            yield f"routes are {table.routes}, not {expected.routes}"
            return
        if daemon.machine.addresses != self.kernel.addresses:
            yield "the addresses of the machine are not known"
        yield from self._wrong_sockets(daemon, expected)
        wanted = {check.port for check in expected.health_checks.values()}
        if {port for _, port in self.http.open} != wanted:
            yield f"health checks are at {self.http.open.keys()}, not at {wanted}"

    def _reasons(self, daemon: Daemon) -> Iterator[str]:
        yield from map(str, daemon.reasons_not_ready())
        yield from map(str, daemon.notes())
        needed = set(daemon.reconciler._holdings.needed)
        if self.kernel.claims != needed:
            yield f"claimed is {self.kernel.claims}, not {needed}"
        for complaints in daemon.reconciler.intake.complaints.values():
            yield from map(str, complaints)
        for failure in daemon.reconciler.failures.values():
            yield failure.reason
        yield from daemon.reconciler.health_check_failures.values()
        yield from (
            each.reason
            for each in service_statuses(daemon.reconciler.table)
            if "unexpected" in each.reason
        )
        assert daemon.cluster is not None
        if not daemon.cluster.reachable:
            yield f"the cluster is not followed: {daemon.cluster.last_error}"

    def _expected(self, daemon: Daemon) -> RoutingTable:
        state = ClusterState(SOURCES, node_name=NODE)
        for resource, (source, _) in _KINDS.items():
            found = (_decoded(resource, obj) for obj in self.cluster.of(resource))
            state.replace(source, [obj for obj in found if obj is not None])
        return build(state, daemon._options(), RoutingTable(), state.take_dirty())

    def _wrong_sockets(self, daemon: Daemon, expected: RoutingTable) -> Iterator[str]:
        kernel, living = self.kernel, self.processes.living
        if len(living) != 2 or any(each.hung for each in living):
            yield "not all workers live"
            return
        places = {each.index: each for each in daemon.workers.status()}
        by_pid = {each.pid: each for each in living}
        workers = [by_pid.get(places[index].pid) for index in range(2)]
        if None in workers:
            yield "workers are not known"
            return
        count = 0
        for frontend, route in expected.routes.items():
            tcp = frontend.protocol == "TCP"
            kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
            bound = kernel.listeners(kind, frontend.port)
            mine = [file for file in bound if file.place == (frontend.address, frontend.port)]
            if len(mine) != (2 if tcp or route.usable else 0):
                yield f"{frontend} has {len(mine)} sockets"
                continue
            count += len(mine)
            if tcp and any(file.listening is not route.usable for file in mine):
                yield f"{frontend} listens {[file.listening for file in mine]}"
            for worker, file in zip(workers, mine, strict=False):
                assert worker is not None
                serving = worker.serving.get(frontend)
                if serving is None or serving.file is not file or serving.route != route:
                    yield f"worker {worker.pid} has {serving} for {route}"
        if len(kernel.bound) != count:
            yield f"{len(kernel.bound)} sockets are bound in place of {count}"
        if len(kernel.control.files) != count + 2:
            yield f"{len(kernel.control.files)} descriptors are open in place of {count + 2}"

    def _check_end(self) -> None:
        if self.kernel.control.files or self.kernel.bound:
            raise Broken(f"descriptors are left: {self.kernel.control.files}")
        if self.http.open:
            raise Broken(f"HTTP servers are left: {self.http.open}")
        if self.unexpected:
            raise Broken("\n".join(self.unexpected))

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._note(context["message"], context.get("exception"))

    def _note(self, message: str, error: BaseException | None) -> None:
        """Something was logged with an exception: it should be one of ours."""
        if error is None or not _was_asked_for(error):
            self.unexpected.append(f"{message}: {error!r}")
            self.tell(f"unexpected: {message}")
            if error is not None:
                self.trace += "".join(traceback.format_exception(error)).splitlines()

    @contextmanager
    def _models(self, directory: Path) -> Iterator[None]:
        disk = Disk(self.kernel, *_files())
        around = self.surroundings
        replaced: dict[str, object] = {
            "asyncio.create_subprocess_exec": self.processes.spawn,
            "uproxy.daemon.gc": Mock(),
            "uproxy.startup._cluster": lambda config: Kubernetes(self.api, node_name=NODE),  # type: ignore[arg-type]
            "uproxy.machine.interfaces": around.interfaces,
            "uproxy.machine.gateways": around.gateways,
            "uproxy.machine.name_servers": around.name_servers,
            "uproxy.machine.resolved": around.resolved,
            "uproxy.machine.AddressMonitor": around.monitor,
            "uproxy.addresses.routes.add_claims": around.add_claims,
            "uproxy.addresses.routes.release_claims": around.release_claims,
            "uproxy.addresses.routes.held_claims": around.held_claims,
            "uproxy.addresses.routes.may_claim": around.may_claim,
            "uproxy.addresses.claims.take_lock": around.take_lock,
            "uproxy.http.health.HttpServer": self.http.server,
            "uproxy.sources.remembering.save": disk.save,
            "uproxy.sources.remembering.load": disk.load,
            "uproxy.core.routing.derive": self._derive,
            "uproxy.syncs.Syncs.applying": self._applying(),
        }
        with ExitStack() as stack:
            stack.enter_context(installed(self.kernel))
            stack.enter_context(self.clock.instead_of_time())
            for name, model in replaced.items():
                stack.enter_context(patch(name, model))
            stack.enter_context(_heard(self))
            yield

    def _derive(self, service: Service, *arguments: Any) -> Any:
        if service.metadata.name == POISON and self.weather.strikes("derive"):
            raise Bug("derive")
        return _DERIVE(service, *arguments)

    def _applying(self) -> Any:
        real, world = uproxy.syncs.Syncs.applying, self

        def applying(syncs: Any, state: ClusterState, obj: Object) -> None:
            if obj.key.name.startswith(POISON) and world.weather.strikes("derive"):
                raise Bug("taking in")
            real(syncs, state, obj)

        return applying


_DERIVE: Final[Any] = vars(uproxy.core.routing)["derive"]


def _files() -> tuple[Any, Any]:
    found = vars(uproxy.sources.remembering)
    return found["save"], found["load"]


def _decoded(resource: str, obj: dict[str, Any]) -> Object | None:
    try:
        return from_json(json.dumps(obj).encode(), _KINDS[resource][1])
    except DecodeError:
        return None


def _was_asked_for(error: BaseException) -> bool:
    """Whether it, or what has led to it, was made up."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            return all(map(_was_asked_for, seen.exceptions))
        if isinstance(seen, Bug) or MADE_UP in getattr(seen, "__notes__", ()):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


class _Ear(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.tell(f"log {record.levelname} {record.getMessage()[:300]}")
        if record.exc_info and record.exc_info[1] is not None:
            self._world._note(record.getMessage(), record.exc_info[1])


@contextmanager
def _heard(world: World) -> Iterator[None]:
    log, ear = logging.getLogger("uproxy"), _Ear(world)
    level = log.level
    log.addHandler(ear)
    log.setLevel(logging.INFO)
    propagate, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(ear)
        log.setLevel(level)
        log.propagate = propagate
