"""One line for each process that has ports which uproxy needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from tests.control.workers.world import WEB, eventually, route
from uproxy.config.settings import Address, Config
from uproxy.control.environment import Environment
from uproxy.control.port_conflicts import PortConflicts
from uproxy.core.route import Frontend
from uproxy.core.routing.retries import Failure
from uproxy.host.port_holders import Holder, Port

TAKEN = "TCP port 1 on 127.0.0.1 is already in use by another process"
HOLDERS = {10256: Holder(user="root"), 10249: Holder(user="root")}
RULES = "kube-proxy in mode nftables (table kube-proxy)"


class Around:
    """A daemon of which some things cannot listen, and the programs of its node."""

    def __init__(self, **settings: Any) -> None:
        self.routes = [route(port) for port in range(1, 5)]
        self.reconciler = SimpleNamespace(
            failures={}, health_check_failures={}, served_once=asyncio.Event()
        )
        self.reconciler.table = SimpleNamespace(
            routes={each.frontend: each for each in self.routes}, health_checks={}
        )
        self.reconciler.served_once.set()
        self.servers = [
            SimpleNamespace(name=name, reason="", bound=()) for name in ("health", "metrics")
        ]
        self.config = Config(**settings)
        self.holders: dict[int, Holder] = {}
        self.answers = ""
        self.rules: list[str] = []
        self.searches = 0

    def fail(self, *ports: int, reason: str = TAKEN) -> None:
        for each in self.routes:
            if each.frontend.port in ports:
                self.reconciler.failures[each.frontend] = Failure(reason, absent=False)

    def find(self, ports: Collection[Port]) -> Mapping[Port, Holder]:
        self.searches += 1
        return {each: self.holders.get(each.number, Holder()) for each in ports}

    @asynccontextmanager
    async def conflicts(self) -> AsyncIterator[PortConflicts]:
        environment = Environment(
            find_port_holders=self.find,
            service_proxy_at=lambda host, port: self.answers,
            find_other_proxies=lambda: self.rules,
        )
        made = PortConflicts(self, environment)  # type: ignore[arg-type]
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(made.run())
            yield made
            task.cancel()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LOOK", "_PAUSE"):
        monkeypatch.setattr(f"uproxy.control.port_conflicts.{name}", 0.001)


async def notes_of(around: Around, enough: Callable[[PortConflicts], object]) -> list[str]:
    async with around.conflicts() as made:
        await eventually(lambda: enough(made))
        return list(made.notes)


async def test_one_line_for_all_that_one_process_has(caplog: pytest.LogCaptureFixture) -> None:
    around = Around()
    around.fail(1, 2, 3)
    around.servers[0].reason = TAKEN
    around.holders = dict.fromkeys((1, 2, 3, 10256), Holder("uproxy", 42, "root"))
    async with around.conflicts() as made:
        await eventually(lambda: made.notes)
        (note,) = made.notes
        assert note.startswith(
            "another uproxy (process 42) has the ports of 3 frontends and the health address; stop"
        )
        around.reconciler.failures.clear()
        await eventually(lambda: around.searches == 2)
        await eventually(lambda: "frontends" not in made.notes[0])
        around.servers[0].reason = ""
        await eventually(lambda: not made.notes)
    assert caplog.messages == [note], "nothing new is worth a line when something is over"


async def test_each_process_has_its_line_and_what_fails_later_one_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    around = Around()
    around.fail(1, 2)
    around.holders = {1: Holder("a", 1, "x"), 2: Holder("b", 2, "x"), 3: Holder("a", 1, "x")}
    async with around.conflicts() as made:
        await eventually(lambda: len(made.notes) == 2)
        around.fail(3)
        await eventually(lambda: len(caplog.messages) == 3)
    assert [each.partition(";")[0] for each in caplog.messages] == [
        f"a (process 1) has the port of 127.0.0.1:1/TCP for {WEB}",
        f"b (process 2) has the port of 127.0.0.1:2/TCP for {WEB}",
        f"a (process 1) has the ports of 127.0.0.1:1/TCP for {WEB} and 127.0.0.1:3/TCP for {WEB}",
    ]


async def test_other_troubles_are_told_elsewhere() -> None:
    around = Around()
    around.fail(1, reason="TCP port 1 needs root or CAP_NET_BIND_SERVICE")
    around.fail(2)
    (note,) = await notes_of(around, lambda made: made.notes)
    assert "127.0.0.1:2/TCP" in note
    assert "127.0.0.1:1/TCP" not in note


async def test_a_uproxy_of_another_user_is_known_by_what_it_answers() -> None:
    around = Around()
    around.fail(1, 2, 3)
    around.servers[1].reason = TAKEN
    around.holders, around.answers = dict(HOLDERS), "uproxy"
    notes = await notes_of(around, lambda made: made.notes)
    assert all(each.startswith("another uproxy has the port") for each in notes)


async def test_a_kube_proxy_is_too_but_it_has_no_ports_of_services() -> None:
    around = Around()
    around.fail(1)
    for server in around.servers:
        server.reason = TAKEN
    around.holders, around.answers = dict(HOLDERS), "kube-proxy"
    one, other = await notes_of(around, lambda made: len(made.notes) == 2)
    assert one.startswith(f"another process has the port of 127.0.0.1:1/TCP for {WEB};")
    assert other.startswith(
        "kube-proxy has the ports of the metrics address and the health address"
    )


async def test_a_kube_proxy_that_has_ports_is_not_told_again_for_its_rules(
    caplog: pytest.LogCaptureFixture,
) -> None:
    around = Around()
    around.rules = [RULES]
    around.servers[0].reason = TAKEN
    around.holders[10256] = Holder("kube-proxy", 7, "root")
    async with around.conflicts() as made:
        await eventually(lambda: made.notes)
        around.fail(1)
        await eventually(lambda: len(made.notes) == 2)
    assert [each.split()[0] for each in caplog.messages] == ["kube-proxy", "another"]


async def test_a_health_check_port() -> None:
    around = Around()
    around.reconciler.health_check_failures = {"default/web": TAKEN, "default/gone": TAKEN}
    around.reconciler.table.health_checks = {"default/web": SimpleNamespace(port=7)}
    around.holders = {7: Holder("nginx", 3, "root")}
    (note,) = await notes_of(around, lambda made: made.notes)
    assert note.startswith("nginx (process 3) has the port of the health check of default/web;")


async def test_a_service_that_asks_for_a_port_of_this_uproxy_meets_no_other_uproxy() -> None:
    around = Around(metrics_address=Address("127.0.0.1", 2))
    around.fail(1, 2)
    around.reconciler.health_check_failures = {"default/web": TAKEN}
    around.reconciler.table.health_checks = {"default/web": SimpleNamespace(port=10256)}
    around.servers[0].bound = (Address("::", 10256),)
    around.servers[1].bound = (Address("127.0.0.1", 2),)
    around.holders, around.answers = {1: Holder(user="root"), 2: Holder(user="root")}, "uproxy"
    assert await notes_of(around, lambda made: made.notes) == [
        f"a process of the user root has the port of 127.0.0.1:1/TCP for {WEB}; as root, ss -ltnup "
        "says which process has them; uproxy keeps trying",
        f"the metrics address of this uproxy has the port of 127.0.0.1:2/TCP for {WEB}; give it "
        "another port (--metrics-bind-address), or give the Service another one",
        "the health address of this uproxy has the port of the health check of default/web; give "
        "it another port (--healthz-bind-address), or give the Service another one",
    ]


class Passing(dict[Frontend, Failure]):
    """Failures, each of which is over when it has been looked at once."""

    looks = 0

    def items(self) -> Any:
        self.looks += 1
        found = list(super().items())
        self.clear()
        return found


async def test_what_fails_for_a_moment_only_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    around = Around()
    around.reconciler.failures = passing = Passing()
    async with around.conflicts() as made:
        await eventually(lambda: passing.looks > 2)
        around.fail(1)
        enough = passing.looks + 3
        await eventually(lambda: passing.looks > enough)
        assert not made.notes
    assert not passing
    assert (around.searches, caplog.messages) == (0, [])


async def test_rules_of_a_kube_proxy_unless_it_leaves_our_services_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    around = Around()
    around.rules = [RULES, "Cilium (interface cilium_host)"]
    (note,) = await notes_of(around, lambda made: made.notes)
    assert note.startswith(f"{RULES} serves Services on this node, too; ")
    assert caplog.messages == [note]
    apart = Around(service_proxy_name="mine")
    apart.rules = [RULES]
    apart.fail(1)
    (note,) = await notes_of(apart, lambda made: made.notes)
    assert "127.0.0.1:1/TCP" in note
