"""A control process in a world where everything may fail, and what must be true of it.

Time, chance, the kernel, the API server, worker processes and netlink are models, which the program
is given as its environment; the rest is the program itself, assembled as in production. For a while
all kinds of faults are injected. When they stop, everything has to be as it should be within a
bounded time. And while one kind of call keeps failing, everything that it does not concern has to
be served.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, cast

from tests.faults.api import Cluster, FakeApi
from tests.faults.checks import Broken, Checks, Concerned, decoded
from tests.faults.clock import Clock, VirtualLoop
from tests.faults.injection import FaultInjector
from tests.faults.kernel import Kernel
from tests.faults.machine import HttpServers, Surroundings
from tests.faults.models import environment, logged, mistakes, was_injected
from tests.faults.objects import NODE, POISON, POOL, node, some_service, some_slice
from tests.faults.processes import Processes
from uproxy.config.settings import Config
from uproxy.control.daemon import Daemon
from uproxy.control.startup import running
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.route import Frontend
from uproxy.sources.kubernetes.source import KubernetesSource

BOUND: Final = 200.0
"""Seconds, of the run's own time, within which everything has to be well after bad faults. The
longest waits are for a watch over which nothing comes any more, 90 s, and for workers that do not
start, 60 s."""
_STEADY: Final = 3.0
"""Seconds that it has to stay well."""


def attempt(seed: int) -> tuple[list[str], str]:
    """Run one seed; returns its trace, and what it has failed with ("": it has not)."""
    world = World(seed)
    try:
        world.run()
    except BaseException as error:
        failures = ["".join(traceback.format_exception(each, limit=-4)) for each in _leaves(error)]
        return world.trace, "\n".join([*failures, *world.unexpected])
    return world.trace, ""


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Of a group, what it is made of."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


class World:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.trace: list[str] = []
        self.unexpected: list[str] = []
        """Exceptions that nobody has asked for."""
        self._directory = "-"
        """Of the state; its name is another one each time."""
        self._clock = Clock()
        self._rng = random.Random(f"{seed} events")
        # Another name would give other runs than those of which decision 0012 lists the seeds.
        self._faults = FaultInjector(random.Random(f"{seed} weather"))
        self._kernel = Kernel(self._clock, self._faults, self._tell)
        self._processes = Processes(self._kernel, self._faults, random.Random(f"{seed} workers"))
        self._around = Surroundings(self._kernel, self._faults)
        self._http = HttpServers(self._kernel, self._faults)
        self._cluster = Cluster()
        self._api = FakeApi(self._cluster, self._faults, random.Random(f"{seed} api"))
        self._checks = Checks(self._kernel, self._processes, self._http, self._cluster)

    def run(self) -> None:
        """Raises Broken, or whatever else is wrong."""
        random.seed(self.seed)

        def new_loop() -> VirtualLoop:
            rng = random.Random(f"{self.seed} threads")
            loop = VirtualLoop(self._clock, rng, self._kernel.readiness)
            loop.set_exception_handler(self._unhandled)
            return loop

        with (
            tempfile.TemporaryDirectory() as directory,
            mistakes(self._faults),
            self._clock.instead_of_time(),
            logged(self._tell, self._note),
            asyncio.Runner(loop_factory=new_loop) as runner,
        ):
            self._directory = directory
            runner.run(self._main(Path(directory)))
        problems = [*self._checks.left_over(), *self.unexpected]
        if problems:
            raise Broken("\n".join(problems))

    async def _main(self, directory: Path) -> None:
        config = Config(
            **self._load_balancer(),
            node_name=NODE,
            external_ip_cidrs=("203.0.113.0/24",),
            healthz_address=None,
            metrics_address=None,
            workers=2,
            drain_timeout=3.0,
            state_dir=directory,
        )
        self._cluster.put("nodes", node(self._rng))
        for _ in range(6):
            self._change_cluster()
        if self._rng.random() < 0.5:
            self._change_faults()
        async with self._running(config) as daemon:
            await self._inject_faults()
            self._stop_faults()
            await self._until(lambda: self._checks.unwell(daemon), BOUND)
            self._tell("all is well")
            await self._one_thing_fails(daemon)
            self._stop_faults()
            await self._until(lambda: self._checks.unwell(daemon), BOUND)
            self._tell("drain")
            await daemon.drain()

    def _load_balancer(self) -> dict[str, Any]:
        """Settings, in every other run: what else happens is the same in the others as ever."""
        if random.Random(f"{self.seed} load balancer").random() < 0.5:
            return {}
        self._tell(f"addresses are handed out: {POOL}")
        pool = Pool(name="default", ranges=(AddressRange.parse(POOL),))
        return {"lb_mode": "pools", "lb_pools": (pool,), "announce": "never"}

    def _running(self, config: Config) -> AbstractAsyncContextManager[Daemon]:
        """The program as always, in an environment of models."""
        source = KubernetesSource(
            cast("Any", self._api), node_name=NODE, clock=self._clock.monotonic
        )
        models = environment(self._kernel, self._processes, self._around, self._http)
        return running(config, environment=models, cluster=lambda _: source)

    async def _inject_faults(self) -> None:
        """Changes and faults, for about a minute."""
        for _ in range(self._rng.randrange(15, 50)):
            await asyncio.sleep(self._rng.choice((0.0, 0.01, 0.3, 1.0, 3.0, 8.0)))
            what = self._rng.random()
            if what < 0.3:
                self._change_faults()
            elif what < 0.5:
                self._change_machine()
            else:
                self._change_cluster()

    async def _one_thing_fails(self, daemon: Daemon) -> None:
        """For good, and meanwhile others change."""
        kind, concerned = self._rng.choice(
            (
                ("derive", self._is_poisoned(daemon)),
                ("http", _is_never),
                ("write", _is_never),
                ("events", _is_never),
                ("addresses", _is_never),
                ("netlink", _is_claimed),
                ("route", _is_claimed),
            )
        )
        self._tell(f"from now on fails: {kind}")
        self._faults.start([kind], 1.0)
        for _ in range(4):
            self._change_cluster(POISON if kind == "derive" and not _ else "")
            await asyncio.sleep(self._rng.choice((0.0, 1.0)))
        self._mend_cluster()
        await self._until(lambda: self._checks.unserved(daemon, concerned), BOUND)

    def _is_poisoned(self, daemon: Daemon) -> Concerned:
        """Whether the Service with which something is wrong wants, or has wanted, that place."""
        name = ObjectName("default", POISON)

        def concerned(frontend: Frontend) -> bool:
            tables = daemon.reconciler.table, self._checks.expected(daemon)
            wanted = [table.services[name].routes for table in tables if name in table.services]
            ports = {route.frontend.port for routes in wanted for route in routes}
            return frontend.port in ports

        return concerned

    async def _until(self, problems: Callable[[], Iterable[str]], bound: float) -> None:
        """Wait until there are none, and stay none for a while."""
        loop = asyncio.get_running_loop()
        until, well_since = loop.time() + bound, None
        while True:
            with self._faults.suspended():
                found = list(problems())
            if found:
                well_since = None
            elif well_since is None:
                well_since = loop.time()
            elif loop.time() - well_since > _STEADY:
                return
            if loop.time() > until:
                raise Broken("\n".join(found) or "now well, now not")
            await asyncio.sleep(0.5)

    def _change_faults(self) -> None:
        self._faults.stop()
        if self._rng.random() < 0.8:
            self._tell(f"faults: {self._faults.start()}")
        else:
            self._tell("faults: none")

    def _change_machine(self) -> None:
        kernel = self._kernel
        match self._rng.randrange(5):
            case 0:
                address = self._rng.choice(("192.0.2.1", "192.0.2.77", "203.0.113.2"))
                kernel.addresses ^= {address}
                # The bridge takes the lowest address of its ports.
                kernel.bridge_mac = f"02:00:00:00:00:{len(self.trace) % 256:02x}"
                self._around.changed()
                verb = "comes" if address in kernel.addresses else "goes"
                self._tell(f"address {address} {verb}")
            case 1:
                port = self._rng.choice((80, 81, 30000, 30001))
                kernel.taken ^= {(socket.SOCK_STREAM, port)}
                self._tell(f"port {port} changes hands")
            case 2:
                kernel.control.limit = self._rng.choice((24, 60, 250, 1024))
                self._tell(f"{kernel.control.limit} descriptors")
            case 3 if self._processes.living:
                self._rng.choice(self._processes.living).end(self._rng.choice((-9, -11, 1, 0)))
            case _ if self._processes.living:
                self._rng.choice(self._processes.living).hang()

    def _change_cluster(self, name: str = "") -> None:
        match self._rng.randrange(10) if not name else 9:
            case 0 if len(self._cluster.objects) > 4:
                kept = ("nodes", "leases")
                key = self._rng.choice([key for key in self._cluster.objects if key[0] not in kept])
                self._cluster.drop(key)
                self._tell(f"{key} is deleted")
                return
            case 1:
                resource, obj = "nodes", node(self._rng, self._rng.choice((NODE, "there")))
            case 2 | 3 | 4 | 5:
                resource, obj = "endpointslices", some_slice(self._rng)
            case _:
                resource, obj = "services", some_service(self._rng, name)
        self._cluster.put(resource, obj)
        self._tell(f"{resource} {json.dumps(obj)[:300]}")

    def _stop_faults(self) -> None:
        """Nothing fails any more, and everything in the cluster is as it should be."""
        self._tell("calm")
        self._faults.stop()
        self._kernel.taken.clear()
        self._kernel.control.limit = 1024
        self._kernel.addresses |= {"192.0.2.1"}
        self._around.changed()
        self._mend_cluster()

    def _mend_cluster(self) -> None:
        for key, obj in list(self._cluster.objects.items()):
            if key[0] != "leases" and decoded(key[0], obj) is None:
                self._cluster.drop(key)

    def _tell(self, line: str) -> None:
        """Add a line to the trace."""
        line = line.replace(self._directory, "STATE")
        self.trace.append(f"{self._clock.passed:9.3f}  {line}")

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._note(context["message"], context.get("exception"))

    def _note(self, message: str, error: BaseException | None) -> None:
        """Something was logged with an exception: it should be one of ours."""
        if error is None or not was_injected(error):
            self.unexpected.append(f"{message}: {error!r}")
            self._tell(f"unexpected: {message}")
            if error is not None:
                self.trace += "".join(traceback.format_exception(error)).splitlines()


def _is_never(_: Frontend) -> bool:
    return False


def _is_claimed(frontend: Frontend) -> bool:
    """Whether its address has to be claimed; most are not there otherwise."""
    return frontend.address not in ("0.0.0.0", "::", "192.0.2.1")
