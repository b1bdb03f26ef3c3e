"""Replies between pods of one bridge come up to the node: the rules for it, and their life."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.builders import endpoint_slice, local, port, service, table
from tests.netns import kit
from tests.netns.kit import Namespace, Place, World
from tests.netns.peers import pod
from uproxy.control.client_ip_preservation import ClientIPPreservation
from uproxy.core.protocols import TCP, UDP
from uproxy.core.route import Backend
from uproxy.core.routing.table import RoutingTable
from uproxy.host import bridge_probe, commands
from uproxy.host.bridge_probe import replies_come_back
from uproxy.host.bridge_rules import BridgeRules
from uproxy.host.client_addresses import ClientAddressRules, remove_client_address_rules
from uproxy.host.links import read_neighbours, read_pod_networks

pytestmark = kit.needs("nft=nftables")

PATIENCE = 20.0
SILENCE = 0.5
"""Seconds. A reply in namespaces takes less than a millisecond."""
FAMILIES = ["IPv4", "IPv6"]
KINDS = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
TRANSPARENT = {
    socket.AF_INET: (socket.SOL_IP, socket.IP_TRANSPARENT),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 75),
}
CLOSED = 8081
"""A port on which nothing listens."""
LONG = bytes(5000)
"""A datagram that takes several fragments, which a pod echoes."""


@pytest.fixture
def inside(net: World) -> Iterator[World]:
    """The test is in the node's namespace, and leaves nothing there."""
    with net.node.space.inside():
        yield net
        remove_client_address_rules()


def as_pod(net: World, client: str, backend: tuple[str, int], protocol: str) -> socket.socket:
    """A socket of the node with a pod's address, connected to another pod."""
    family = kit.family_of(client)
    sock = net.node.space.socket(family, KINDS[protocol])
    try:
        sock.setsockopt(*TRANSPARENT[family], 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, protocol == TCP)
        sock.bind((client, next(_ports)))
        sock.settimeout(PATIENCE)
        sock.connect(backend)
    except BaseException:
        sock.close()
        raise
    return sock


def refused(net: World, client: str, backend: tuple[str, int], protocol: str) -> None:
    with as_pod(net, client, backend, protocol) as sock:
        sock.send(b"x")
        sock.recv(100)


_ports = iter(range(10000, 30000))


def mac(space: Namespace, interface: str = "cbr0") -> str:
    return space.run("cat", f"/sys/class/net/{interface}/address").strip()


def divert(net: World, *backends: Backend) -> BridgeRules:
    ClientAddressRules().install()
    rules = BridgeRules()
    rules.divert(dict.fromkeys(backends, mac(net.node.space)))
    assert (rules.installed, rules.reason, rules.intact()) == (True, "", True)
    return rules


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes do not wait for a second SYN."""
    monkeypatch.setattr(bridge_probe, "_TIMEOUT", SILENCE)


@pytest.fixture(params=[0, 1], ids=["bridge-nf-call 0", "bridge-nf-call 1"])
def filtered(request: pytest.FixtureRequest, net: World) -> Iterator[None]:
    if not kit.HAS_BRIDGE_FILTER:
        yield
        return
    names = ("bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables")
    net.node.space.write_sysctls(dict.fromkeys(names, request.param))
    yield
    net.node.space.write_sysctls(dict.fromkeys(names, 1))


@pytest.mark.usefixtures("filtered")
@pytest.mark.parametrize("family", FAMILIES)
class TestRules:
    @pytest.mark.parametrize("protocol", [TCP, UDP])
    def test_a_reply_comes_up(self, inside: World, family: str, protocol: str) -> None:
        client, backend = (place.address(family) for place in inside.local[:2])
        with pod("b", inside.local[1]):
            divert(inside, Backend(backend, 8080))
            with as_pod(inside, client, (backend, 8080), protocol) as sock:
                if protocol == UDP:
                    sock.send(b"x")
                assert sock.recv(100).decode() == f"b {client}\n"

    @pytest.mark.parametrize("protocol", [TCP, UDP])
    def test_a_refusal_comes_up(self, inside: World, family: str, protocol: str) -> None:
        """A reset, or an ICMP error."""
        client, backend = (place.address(family) for place in inside.local[:2])
        divert(inside, Backend(backend, CLOSED))
        with pytest.raises(ConnectionRefusedError):
            refused(inside, client, (backend, CLOSED), protocol)

    def test_all_fragments_of_a_reply_come_up(self, inside: World, family: str) -> None:
        client, backend = (place.address(family) for place in inside.local[:2])
        with pod("b", inside.local[1]):
            divert(inside, Backend(backend, 8080))
            with as_pod(inside, client, (backend, 8080), UDP) as sock:
                sock.send(LONG)
                assert sock.recv(65536) == f"b {client}\n".encode() + LONG

    def test_fragments_to_a_pod_arrive_there(self, inside: World, family: str) -> None:
        """They come up too, as their ports are not known, and are forwarded."""
        client, backend = (place.address(family) for place in inside.local[:2])
        with pod("b", inside.local[1]):
            divert(inside, Backend(backend, 8080))
            kind = kit.family_of(backend), socket.SOCK_DGRAM
            with inside.local[0].space.socket(*kind) as sock:
                sock.settimeout(PATIENCE)
                sock.connect((backend, 8080))
                sock.send(LONG)
                assert sock.recv(65536) == f"b {client}\n".encode() + LONG

    def test_a_backend_that_is_not_diverted_any_more(self, inside: World, family: str) -> None:
        client, backend = (place.address(family) for place in inside.local[:2])
        with pod("b", inside.local[1]):
            rules = divert(inside, Backend(backend, 8080), Backend(backend, CLOSED))
            rules.divert({Backend(backend, CLOSED): mac(inside.node.space)})
            with as_pod(inside, client, (backend, 8080), UDP) as sock:
                sock.settimeout(SILENCE)
                sock.send(b"x")
                with pytest.raises(TimeoutError):
                    sock.recv(100)

    @pytest.mark.usefixtures("impatient")
    def test_probe(self, inside: World, family: str) -> None:
        client, backend = (place.address(family) for place in inside.local[:2])
        rules = divert(inside, Backend(backend, 9))
        assert replies_come_back(client, backend) is True
        rules.divert({})
        assert replies_come_back(client, backend) is False

    @pytest.mark.usefixtures("impatient")
    def test_probe_of_an_address_that_no_pod_has(self, inside: World, family: str) -> None:
        nobody = "198.51.100.99" if family == "IPv4" else "2001:db8:2::99"
        divert(inside, Backend(nobody, 9))
        assert replies_come_back(inside.local[0].address(family), nobody) is None


@pytest.mark.usefixtures("filtered")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_of_the_pod_itself_survives_a_dial_from_its_port(
    inside: World, family: str
) -> None:
    """The backend acknowledges the SYN as a stray one; the answer to that must not be a reset."""
    client, backend = (place.address(family) for place in inside.local[:2])
    with pod("b", inside.local[1]), ExitStack() as stack:
        divert(inside, Backend(backend, 8080))
        number = next(_ports)
        domain = kit.family_of(client)
        direct = stack.enter_context(inside.local[0].space.socket(domain, socket.SOCK_STREAM))
        direct.settimeout(PATIENCE)
        direct.bind((client, number))
        direct.connect((backend, 8080))
        assert direct.recv(100).decode() == f"b {client}\n"
        dialed = stack.enter_context(inside.node.space.socket(domain, socket.SOCK_STREAM))
        dialed.settimeout(SILENCE)
        dialed.setsockopt(*TRANSPARENT[domain], 1)
        dialed.bind((client, number))
        with pytest.raises(TimeoutError):
            dialed.connect((backend, 8080))
        dialed.close()
        direct.sendall(b"still here")
        assert direct.recv(100) == b"still here"


def greet(net: World, family: str) -> set[str]:
    """Make all pods of the bridge neighbours of the node; returns their addresses."""
    wanted = {place.address(family) for place in net.local}
    with net.node.space.socket(kit.family_of(min(wanted)), socket.SOCK_DGRAM) as sock:
        for address in wanted:
            sock.sendto(b"x", (address, CLOSED))
    return wanted


@pytest.mark.parametrize("family", FAMILIES)
async def test_neighbours(inside: World, family: str) -> None:
    wanted = greet(inside, family)
    index = socket.if_nametoindex("cbr0")
    await until(lambda: wanted <= read_neighbours(index).keys())
    found = read_neighbours(index)
    for place in inside.local:
        assert found[place.address(family)] == mac(place.space, "eth0")
    assert wanted.isdisjoint(read_neighbours(socket.if_nametoindex("eth0")))


class TestElements:
    """What the maps contain."""

    def test_only_what_differs_is_changed(
        self, inside: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backends = [Backend(f"198.51.100.{number}", 80) for number in range(2, 100)]
        first, second = "02:00:00:00:00:01", "02:00:00:00:00:02"
        rules = BridgeRules()
        rules.divert(dict.fromkeys(backends, first))
        given: list[str] = []
        run = commands.run_command

        def recorded(*words: str, text: str = "", **options: object) -> str:
            given.append(text)
            return run(*words, text=text, **options)  # type: ignore[arg-type]

        monkeypatch.setattr("uproxy.host.bridge_rules.run_command", recorded)
        rules.divert(dict.fromkeys(backends[1:], first) | {backends[-1]: second})
        assert rules.intact()
        assert given[0].splitlines() == [
            "delete element bridge uproxy backends4 { 198.51.100.2 . 80 : 02:00:00:00:00:01 }",
            "delete element bridge uproxy backends4 { 198.51.100.99 . 80 : 02:00:00:00:00:01 }",
            "add element bridge uproxy backends4 { 198.51.100.99 . 80 : 02:00:00:00:00:02 }",
            "delete element bridge uproxy hosts4 { 198.51.100.2 : 02:00:00:00:00:01 }",
            "delete element bridge uproxy hosts4 { 198.51.100.99 : 02:00:00:00:00:01 }",
            "add element bridge uproxy hosts4 { 198.51.100.99 : 02:00:00:00:00:02 }",
        ]
        given.clear()
        rules.divert(dict.fromkeys(backends[1:], first) | {backends[-1]: second})
        assert given == []

    def test_the_same_as_before_when_the_table_is_gone(self, inside: World) -> None:
        rules = BridgeRules()
        rules.divert({Backend("198.51.100.2", 80): "02:00:00:00:00:01"})
        inside.node.space.run("nft", "flush", "ruleset")
        assert not rules.intact()
        rules.divert({Backend("2001:db8:2::2", 80): "02:00:00:00:00:01"})
        assert (rules.reason, rules.intact()) == ("", True)

    @pytest.mark.parametrize(
        "damage",
        [
            "delete table bridge uproxy",
            "flush chain bridge uproxy divert",
            "flush map bridge uproxy backends4",
            "flush map bridge uproxy hosts6",
            "add element bridge uproxy hosts4 { 198.51.100.7 : 02:00:00:00:00:01 }",
        ],
    )
    def test_damage_is_noticed(self, inside: World, damage: str) -> None:
        rules = BridgeRules()
        addresses = ("198.51.100.2", "2001:db8:2::2", "2001:db8:2::1:2")
        rules.divert({Backend(each, 80): "02:00:00:00:00:01" for each in addresses})
        assert rules.intact()
        inside.node.space.run("nft", *damage.split())
        assert not rules.intact()
        rules.restore()
        assert rules.intact()

    def test_leftovers_go_if_nothing_is_diverted(self, inside: World) -> None:
        BridgeRules().divert({Backend("198.51.100.2", 80): "02:00:00:00:00:01"})
        BridgeRules().divert({})
        assert "bridge" not in inside.node.space.run("nft", "list", "ruleset")


def web(net: World, *places: Place) -> RoutingTable:
    """A Service with these pods, which is to see pods."""
    return table(
        service("web", port(80)),
        endpoint_slice("web", *(local(place.ipv4) for place in places)),
    )


@asynccontextmanager
async def shown(period: float = 0.05) -> AsyncIterator[ClientIPPreservation]:
    made = ClientIPPreservation("auto", changed=lambda: None, with_flows=frozenset, period=period)
    async with made, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.run())
        yield made
        running.cancel()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def ruleset(net: World) -> str:
    return net.node.space.run("nft", "--stateless", "list", "ruleset")


def probed(net: World) -> int:
    """How many SYNs of probes the policy has dropped. A probe sends one within its time."""
    listing = net.node.space.run("nft", "list", "table", "inet", "denying")
    return int(listing.split("packets ")[1].split()[0])


class TestLife:
    async def test_only_on_a_node_with_pods(self, inside: World) -> None:
        async with shown() as made:
            await made.prepare(web(inside, inside.local[1]))
            await until(made._done.is_set)
            assert (ruleset(inside), made.shown.families) == ("", ())
            made.set_networks(read_pod_networks(kit.PODS))
            await until(lambda: made.shown.pods)
            assert made.shown.switched == {}
            assert f"{inside.local[1].ipv4} . 8080" in ruleset(inside)
            made.set_networks(read_pod_networks(()))
            await until(lambda: ruleset(inside) == "")
            assert made.shown.pods == ()

    async def test_backends_are_diverted_when_prepare_returns(self, inside: World) -> None:
        """Workers learn of them afterwards."""
        async with shown(period=1000) as made:
            made.set_networks(read_pod_networks(kit.PODS))
            await made.prepare(web(inside, inside.local[0]))
            assert made.shown.pods == ("198.51.100.0/25", "2001:db8:2::/64")
            assert f"{inside.local[0].ipv4} . 8080" in ruleset(inside)
            await made.prepare(web(inside, inside.local[1]))
            assert f"{inside.local[1].ipv4} . 8080" in ruleset(inside)

    async def test_they_go_with_the_service(self, inside: World) -> None:
        async with shown() as made:
            made.set_networks(read_pod_networks(kit.PODS))
            await made.prepare(web(inside, inside.local[0]))
            await made.prepare(RoutingTable())
            await until(lambda: ruleset(inside) == "")

    @pytest.mark.parametrize("damage", ["flush ruleset", "delete table bridge uproxy"])
    async def test_repaired(self, inside: World, damage: str) -> None:
        async with shown() as made:
            made.set_networks(read_pod_networks(kit.PODS))
            await made.prepare(web(inside, inside.local[0]))
            whole = ruleset(inside)
            inside.node.space.run("nft", *damage.split())
            await until(lambda: sorted(ruleset(inside)) == sorted(whole))

    async def test_a_bridge_with_another_address(self, inside: World) -> None:
        async with shown(period=1000) as made:
            made.set_networks(read_pod_networks(kit.PODS))
            await made.prepare(web(inside, inside.local[0]))
            before = mac(inside.node.space)
            try:
                inside.node.space.ip("link set cbr0 address 02:00:00:00:00:77")
                made.set_networks(read_pod_networks(kit.PODS))
                await until(lambda: before not in ruleset(inside))
                assert "02:00:00:00:00:77" in ruleset(inside)
            finally:
                inside.node.space.ip(f"link set cbr0 address {before}")

    async def test_leftovers_of_a_killed_process(self, inside: World) -> None:
        BridgeRules().divert({Backend("198.51.100.77", 80): "02:00:00:00:00:01"})
        async with shown(period=1000) as made:
            made.set_networks(read_pod_networks(kit.PODS))
            await made.prepare(web(inside, inside.local[0]))
            assert "198.51.100.77" not in ruleset(inside)
            assert f"{inside.local[0].ipv4} . 8080" in ruleset(inside)
        assert ruleset(inside) == ""

    @pytest.mark.usefixtures("impatient")
    async def test_a_network_policy_is_no_bridge_that_does_not_work(self, inside: World) -> None:
        """It lets in what the node sends, and drops what pods send: so do those of three pods."""
        policy = """
            table inet denying {
                chain c {
                    type filter hook output priority 0;
                    ip saddr 198.51.100.2-198.51.100.126 tcp dport 9 counter drop
                }
            }"""
        greet(inside, "IPv4")
        try:
            commands.run_command("nft", "-f", "-", text=policy)
            async with shown() as made:
                made.set_networks(read_pod_networks(kit.PODS))
                await made.prepare(web(inside, inside.local[0]))
                await until(lambda: probed(inside) >= 8)
                assert made.shown.switched == {}
        finally:
            inside.node.space.run("nft", "delete", "table", "inet", "denying", check=False)

    @pytest.mark.usefixtures("impatient")
    async def test_probed(self, inside: World, caplog: pytest.LogCaptureFixture) -> None:
        """Frames that a program on the node drops do not come up: pods of this bridge are not
        shown to each other then."""
        drop = "add rule bridge dropping c ether type ip tcp dport 10000-29999 drop"
        hook = "add chain bridge dropping c { type filter hook prerouting priority -200; }"
        greet(inside, "IPv4")
        greet(inside, "IPv6")
        try:
            for line in ("add table bridge dropping", hook, drop):
                inside.node.space.run("nft", *line.split())
            async with shown() as made:
                made.set_networks(read_pod_networks(kit.PODS))
                await made.prepare(web(inside, inside.local[0]))
                await until(lambda: "198.51.100.0/25" in made.shown.switched)
                assert "2001:db8:2::/64" not in made.shown.switched
                inside.node.space.run("nft", "delete", "table", "bridge", "dropping")
                await until(lambda: not made.shown.switched)
        finally:
            inside.node.space.run("nft", "delete", "table", "bridge", "dropping", check=False)


async def test_without_the_bridge_family(
    inside: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods behind the bridge see this node from each other, and all else works."""
    _shim(tmp_path / "nft", "bridge", "Error: Could not process rule: Operation not supported")
    monkeypatch.setattr(commands, "_PATH", f"{tmp_path}:{commands._PATH}")
    async with shown() as made:
        made.set_networks(read_pod_networks(kit.PODS))
        await made.prepare(web(inside, inside.local[0]))
        assert made.shown.families == ("IPv4", "IPv6")
        assert made.shown.pods == ("198.51.100.0/25", "2001:db8:2::/64")
        reason = "nft: Error: Could not process rule: Operation not supported"
        assert made.shown.switched == dict.fromkeys(made.shown.pods, reason)
        monkeypatch.undo()
        await until(lambda: not made.shown.switched)


async def test_without_policy_routing(
    inside: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _shim(tmp_path / "ip", "rule", "RTNETLINK answers: Operation not supported")
    monkeypatch.setattr(commands, "_PATH", f"{tmp_path}:{commands._PATH}")
    async with shown() as made:
        made.set_networks(read_pod_networks(kit.PODS))
        await made.prepare(web(inside, inside.local[0]))
        assert (made.shown.families, made.shown.pods) == ((), ())
        assert made.shown.reason == "ip: RTNETLINK answers: Operation not supported"


def _shim(path: Path, refused: str, error: str) -> None:
    """A command that fails if it is to do with a certain word, in its arguments or its input."""
    path.write_text(
        f"""#!/bin/sh
input=; case "$*" in *"-f -"*) input=$(cat);; esac
case "$* $input" in *{refused}*) echo "{error}" >&2; exit 1;; esac
printf '%s\\n' "$input" | exec /sbin/{path.name} "$@"
"""
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
