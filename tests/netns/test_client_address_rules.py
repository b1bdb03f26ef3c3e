"""The rules by which backends see clients' addresses: installed, checked, and removed again."""

from __future__ import annotations

import asyncio
import errno
import sys
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.netns import kit
from tests.netns.kit import Namespace, namespace
from uproxy.control.client_ip_preservation import ClientIPPreservation
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.route import Backend
from uproxy.core.routing.table import RoutingTable
from uproxy.host import commands as commands_module
from uproxy.host.bridge_rules import BridgeRules
from uproxy.host.client_addresses import ClientAddressRules, remove_client_address_rules

pytestmark = kit.needs("nft=nftables")

PATIENCE = 20.0
WEB, API = ObjectName("default", "web"), ObjectName("default", "api")
EVERYTHING = [
    "nftables table inet uproxy",
    "nftables table bridge uproxy",
    "IPv4 rule priority 116 iif lo fwmark 0x75 lookup main",
    "IPv4 rule priority 117 fwmark 0x75 lookup 117",
    "IPv4 route local 0.0.0.0/0 dev lo table 117",
    "IPv6 rule priority 116 iif lo fwmark 0x75 lookup main",
    "IPv6 rule priority 117 fwmark 0x75 lookup 117",
    "IPv6 route local ::/0 dev lo table 117",
]


@pytest.fixture
def space() -> Iterator[Namespace]:
    """Threads that the test starts are in there as well."""
    with namespace("alone") as made, made.inside():
        yield made


def wanted_by(*services: ObjectName) -> RoutingTable:
    return RoutingTable(preserves_outside=frozenset(services))


def state(space: Namespace) -> str:
    """All rules, the table's routes, and nft's tables."""
    commands = ["nft list ruleset"]
    for flag in ("-4", "-6"):
        commands += [f"ip {flag} rule show", f"ip {flag} route show table 117"]
    return "\n".join(space.run(*each.split(), check=False) for each in commands)


@asynccontextmanager
async def client_addresses(
    mode: str, *, period: float = 10.0, wanted: Collection[ObjectName] = (WEB,)
) -> AsyncIterator[ClientIPPreservation]:
    """Clients' addresses are shown, for these Services."""
    made = ClientIPPreservation(mode, changed=lambda: None, with_flows=frozenset, period=period)
    async with made, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.run())
        await made.prepare(wanted_by(*wanted))
        yield made
        running.cancel()


async def test_made_and_removed(space: Namespace) -> None:
    before = state(space)
    async with client_addresses("auto") as made:
        assert (made.shown.families, made.shown.reason) == (("IPv4", "IPv6"), "")
        assert "socket transparent 1" in state(space)
    assert state(space) == before


async def test_removed_when_the_program_fails(space: Namespace) -> None:
    before = state(space)
    with pytest.raises(ExceptionGroup):
        async with client_addresses("auto"):
            raise RuntimeError("on purpose")
    assert state(space) == before


async def test_what_is_being_made_at_the_end_does_not_stay(
    space: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM during the first sync; the thread that makes it does not stop for that."""
    before = state(space)
    begun, go_on = threading.Event(), threading.Event()
    install = ClientAddressRules.install

    def slowly(made: ClientAddressRules) -> None:
        begun.set()
        go_on.wait(PATIENCE)
        install(made)

    monkeypatch.setattr(ClientAddressRules, "install", slowly)
    made = ClientIPPreservation("auto", changed=lambda: None, with_flows=frozenset)
    async with made, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.run())
        preparing = tasks.create_task(made.prepare(wanted_by(WEB)))
        await until(begun.is_set)
        for task in (running, preparing):
            task.cancel()
        # Only now, or the test could not fail.
        asyncio.get_running_loop().call_later(0.2, go_on.set)
    # Whatever still runs in threads.
    await asyncio.get_running_loop().shutdown_default_executor()
    assert state(space) == before


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class TestNeed:
    async def test_nothing_is_made_before_a_service_wants_it(self, space: Namespace) -> None:
        before = state(space)
        async with client_addresses("auto", wanted=()) as made:
            assert (made.shown.families, made.shown.reason, state(space)) == ((), "", before)
            await made.prepare(wanted_by(WEB))
            assert made.shown.families == ("IPv4", "IPv6")
            assert "socket transparent 1" in state(space)
        assert state(space) == before

    async def test_it_goes_with_the_last_service_when_its_flows_have_ended(
        self, space: Namespace
    ) -> None:
        before = state(space)
        changes: list[tuple[str, ...]] = []
        flows = {WEB, API}
        made = ClientIPPreservation(
            "auto",
            changed=lambda: changes.append(tuple(made.shown.families)),
            with_flows=lambda: flows,
            period=0.05,
        )
        async with made, asyncio.TaskGroup() as tasks:
            running = tasks.create_task(made.run())
            await made.prepare(wanted_by(WEB, API))
            during = state(space)
            await made.prepare(wanted_by(WEB))
            flows.discard(API)
            await made.prepare(wanted_by())
            await asyncio.sleep(0.2)
            assert state(space) == during, "replies would go astray"
            flows.clear()
            await until(lambda: not made.shown.families)
            await until(lambda: state(space) == before)
            await made.prepare(wanted_by(API))
            assert state(space) == during
            running.cancel()
        assert changes == [("IPv4", "IPv6"), (), ("IPv4", "IPv6")]

    async def test_leftovers_of_a_killed_process_go_if_no_service_wants_them(
        self, space: Namespace
    ) -> None:
        before = state(space)
        ClientAddressRules().install()
        async with client_addresses("auto", wanted=()):
            await until(lambda: state(space) == before)

    async def test_the_second_one_has_it_when_the_first_ends(self, space: Namespace) -> None:
        async with (
            client_addresses("auto", period=0.05) as first,
            client_addresses("auto", period=0.05) as second,
        ):
            assert (
                second.shown.reason == "another uproxy on this node has installed the rules already"
            )
            await first.prepare(wanted_by())
            await until(lambda: second.shown.families)
            assert second.shown.reason == ""


async def test_never_makes_nothing_and_removes_leftovers(space: Namespace) -> None:
    before = state(space)
    ClientAddressRules().install()
    assert state(space) != before
    async with client_addresses("never") as made:
        assert (made.shown.families, made.shown.reason) == (
            (),
            "switched off by --preserve-client-ip never",
        )
        assert state(space) == before


def test_installing_twice_is_the_same_as_once(space: Namespace) -> None:
    made = ClientAddressRules()
    made.install()
    once = state(space)
    made.install()
    assert state(space) == once
    assert made.families == ("IPv4", "IPv6")


def test_without_ipv6(space: Namespace) -> None:
    space.sysctl(ipv6__conf__all__disable_ipv6=1)
    made = ClientAddressRules()
    made.install()
    assert (made.families, made.reason) == (("IPv4",), "")
    assert [each for each in remove_client_address_rules() if "IPv6" in each] == []


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("nft flush ruleset", id="all of nftables"),
        pytest.param("nft flush table inet uproxy", id="our rule"),
        pytest.param("ip -4 rule del priority 117", id="IPv4 rule"),
        pytest.param("ip -4 rule del priority 116", id="IPv4 rule for the way back"),
        pytest.param("ip -6 rule del priority 117", id="IPv6 rule"),
        pytest.param("ip -6 rule del priority 116", id="IPv6 rule for the way back"),
        pytest.param("ip -4 route flush table 117", id="IPv4 route"),
        pytest.param("ip -6 route flush table 117", id="IPv6 route"),
        pytest.param("ip rule flush", id="all rules"),
    ],
)
async def test_repaired(space: Namespace, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    async with client_addresses("auto", period=0.05) as made:
        whole = state(space)
        space.run(*damage.split())
        assert state(space) != whole
        async with asyncio.timeout(PATIENCE):
            while "repaired" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for line in whole.splitlines():
            if "117" in line or "116:" in line or "socket" in line:
                assert line in state(space)
        assert made.shown.families == ("IPv4", "IPv6")


def test_complete_rules_are_left_alone(space: Namespace) -> None:
    made = ClientAddressRules()
    made.install()
    before = space.run("nft", "-a", "list", "ruleset")
    assert made.intact()
    assert space.run("nft", "-a", "list", "ruleset") == before


async def test_only_one_at_a_time(space: Namespace) -> None:
    before = state(space)
    async with client_addresses("auto"):
        during = state(space)
        for mode, reason in (
            ("auto", "another uproxy on this node has installed the rules already"),
            ("never", "switched off by --preserve-client-ip never"),
        ):
            async with client_addresses(mode) as second:
                assert (second.shown.families, second.shown.reason) == ((), reason)
            assert state(space) == during
        with pytest.raises(OSError, match="a running uproxy needs") as caught:
            remove_client_address_rules()
        assert caught.value.errno == errno.EBUSY
        assert state(space) == during
    assert state(space) == before


def install_everything() -> None:
    ClientAddressRules().install()
    BridgeRules().divert({Backend("198.51.100.2", 80): "02:00:00:00:00:01"})


class TestCleanup:
    def test_all_of_it(self, space: Namespace) -> None:
        before = state(space)
        install_everything()
        assert remove_client_address_rules() == EVERYTHING
        assert state(space) == before
        assert remove_client_address_rules() == []

    def test_a_part(self, space: Namespace) -> None:
        install_everything()
        space.run("nft", "flush", "ruleset")
        space.run("ip", "-6", "route", "flush", "table", "117")
        assert remove_client_address_rules() == EVERYTHING[2:7]

    def test_nothing_of_others(self, space: Namespace) -> None:
        """Not even what differs in a single word."""
        space.run("nft", "add", "table", "ip", "uproxy")
        space.ip(
            "rule add priority 117 fwmark 0x76 lookup 117",
            "rule add priority 118 fwmark 0x75 lookup 117",
            "route add local 192.0.2.0/24 dev lo table 117",
        )
        before = state(space)
        install_everything()
        remove_client_address_rules()
        assert state(space) == before

    def test_command(self, space: Namespace) -> None:
        install_everything()
        printed = space.run(sys.executable, "-m", "uproxy.cli", "cleanup")
        assert [each for each in EVERYTHING if each not in printed] == []
        assert remove_client_address_rules() == []


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        pytest.param((), "ip is not installed (Debian: iproute2)", id="no ip"),
        pytest.param(("ip",), "nft is not installed (Debian: nftables)", id="no nft"),
    ],
)
async def test_missing_commands(
    space: Namespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commands: tuple[str, ...],
    reason: str,
) -> None:
    before = state(space)
    for command in commands:
        (tmp_path / command).symlink_to(f"/sbin/{command}")
    monkeypatch.setattr(commands_module, "_PATH", str(tmp_path))
    async with client_addresses("auto") as made:
        assert (made.shown.families, made.shown.reason) == ((), reason)
    assert state(space) == before
