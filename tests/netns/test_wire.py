"""Announcements on the wire, who hears them, and who answers when an address is looked for."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.netns import kit
from tests.netns.kit import Namespace, namespace
from tests.netns.node import wait_for
from uproxy.host import announced_addresses, frames
from uproxy.host.segments import Segment, read_segments
from uproxy.host.wire import UNPRIVILEGED, Wire

pytestmark = kit.needs("setpriv=util-linux")

IPV4, IPV6 = "192.0.2.80", "2001:db8:1::80"
NODE, PEER = ("192.0.2.1/24", "2001:db8:1::1/64"), ("192.0.2.2/24", "2001:db8:1::2/64")
PATIENCE: Final = 15.0
KINDS: Final = ("veth", "bridge", "bond", "vlan", "macvlan")

Heard = tuple[str, str, str]


class Lan(NamedTuple):
    """Two machines on one segment."""

    node: Namespace
    interface: str
    """That of the node."""
    peer: Namespace
    there: str
    """The interface of the peer."""

    @property
    def segment(self) -> Segment:
        with self.node.inside():
            return read_segments()[self.interface]

    @property
    def mac(self) -> str:
        return self.segment.mac

    @property
    def mac_of_peer(self) -> str:
        with self.peer.inside():
            return read_segments()[self.there].mac


@contextmanager
def segment(kind: str = "veth") -> Iterator[Lan]:
    with namespace("node") as node, namespace("peer") as peer:
        peer.ip(f"link add eth0 type veth peer name p0 netns {node.name}")
        name, lines = {
            "veth": ("p0", ()),
            "bridge": ("br0", ("link add br0 type bridge forward_delay 0",)),
            "bond": ("bond0", ("link add bond0 type bond mode active-backup",)),
            "vlan": ("p0.7", ("link add link p0 name p0.7 type vlan id 7",)),
            "macvlan": ("mv0", ("link add link p0 name mv0 type macvlan mode bridge",)),
        }[kind]
        node.ip(*lines)
        if kind in ("bridge", "bond"):
            node.ip(f"link set p0 master {name}")
        node.ip("link set p0 up", f"link set {name} up")
        there = "eth0"
        if kind == "vlan":
            peer.ip("link add link eth0 name eth0.7 type vlan id 7", "link set eth0 up")
            there = "eth0.7"
        peer.ip(f"link set {there} up")
        for space, interface, addresses in ((node, name, NODE), (peer, there, PEER)):
            space.ip(*(f"addr add {each} dev {interface} {_nodad(each)}" for each in addresses))
        made = Lan(node, name, peer, there)
        wait_for("carrier", lambda: made.segment.carrier, patience=PATIENCE)
        wait_for("link-local", lambda: made.segment.link_local, patience=PATIENCE)
        yield made


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    with segment() as made:
        yield made


@asynccontextmanager
async def following(
    space: Namespace, places: Mapping[str, str], heard: list[Heard]
) -> AsyncIterator[Wire]:
    """A wire in a namespace. (This thread has to be there when it opens sockets.)"""

    def note(address: str, mac: str, interface: str) -> None:
        heard.append((address, mac, interface))

    with space.inside():
        async with Wire(note) as wire:
            wire.follow(places, read_segments())
            yield wire


@contextmanager
def captured(space: Namespace, interface: str) -> Iterator[Callable[[], list[bytes]]]:
    """Frames that arrive at an interface, seen by nothing of uproxy's."""
    with space.inside():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    with sock:
        sock.bind((interface, 0x0003))
        sock.setblocking(False)

        def read() -> list[bytes]:
            found: list[bytes] = []
            while True:
                try:
                    frame, (_, _, kind, _, _) = sock.recvfrom(4096)
                except BlockingIOError:
                    return found
                if kind != socket.PACKET_OUTGOING:
                    found.append(frame)

        yield read


async def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
async def test_announced_in_both_forms(kind: str) -> None:
    """And a neighbour's cache follows."""
    if not _exists(kind):
        pytest.skip(f"the kernel has no interfaces of type {kind}")
    with segment(kind) as lan:
        place = dict.fromkeys((IPV4, IPV6), lan.interface)
        there, mac = lan.there, lan.mac
        for address in place:
            old = "02:00:00:00:00:99"
            lan.peer.ip(f"neigh replace {address} dev {there} lladdr {old} nud stale")
        # The kernel ignores what comes within a second of the last change (locktime).
        await asyncio.sleep(1.1)
        with captured(lan.peer, there) as frames_there:
            async with following(lan.node, place, []) as wire:
                assert wire.reason == ""
                assert wire.announce(IPV4, lan.interface)
                assert wire.announce(IPV6, lan.interface)
            got = frames_there()
        link_local = lan.segment.link_local
        expected = (*frames.announcements(IPV4, mac), *frames.announcements(IPV6, mac, link_local))
        assert len(expected) == 3
        for each in expected:
            assert any(frame.startswith(each) for frame in got)
        for address in place:
            words = ("ip", "-json", "neigh", "show", address)
            assert json.loads(lan.peer.run(*words))[0]["lladdr"] == mac


def test_tcpdump_understands_them(lan: Lan) -> None:
    """A second opinion about each field, and the checksum."""
    tcpdump = "/usr/bin/tcpdump"
    if not os.path.exists(tcpdump):
        pytest.skip("needs tcpdump (Debian: tcpdump)")
    words = (tcpdump, "-lnvvve", "-i", "eth0", "-c", "5", "arp or icmp6[0] = 136 or icmp6[0] = 135")
    with subprocess.Popen(
        lan.peer.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stdout is not None
            while "listening on" not in (line := process.stderr.readline()):
                assert line, "tcpdump has ended"
            mac = lan.mac
            made = [*frames.announcements(IPV4, mac), *frames.announcements(IPV6, mac, "fe80::7")]
            made += [
                frames.probe("192.0.2.81", mac),
                frames.probe("2001:db8:1::81", mac, "fe80::7"),
            ]
            with lan.node.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
                sock.bind(("p0", 0))
                for each in made:
                    sock.send(each)
            text = process.stdout.read()
        finally:
            process.kill()
    for expected in (
        f"{mac} > ff:ff:ff:ff:ff:ff, ethertype ARP",
        f"Request who-has {IPV4} tell {IPV4}",
        f"Reply {IPV4} is-at {mac}",
        "fe80::7 > ff02::1: [icmp6 sum ok] ICMP6, neighbor advertisement, length 32",
        f"tgt is {IPV6}, Flags [override]",
        f"destination link-address option (2), length 8 (1): {mac}",
        "Request who-has 192.0.2.81 tell 0.0.0.0",
        "> ff02::1:ff00:81: [icmp6 sum ok] ICMP6, neighbor solicitation, length 32",
        f"source link-address option (1), length 8 (1): {mac}",
        "hlim 255",
    ):
        assert expected in text, text


@pytest.mark.parametrize("address", [IPV4, IPV6])
async def test_another_machine_is_heard(lan: Lan, address: str) -> None:
    """Whether it announces the address or answers a question; its own frames are not heard."""
    heard: list[Heard] = []
    async with following(lan.node, {address: "p0"}, heard) as wire:
        others: list[Heard] = []
        async with following(lan.peer, {address: "eth0"}, others) as other:
            assert wire.announce(address, "p0")
            await until(lambda: others)
            assert set(others) == {(address, lan.mac, "eth0")}
            assert other.announce(address, "eth0")
            await until(lambda: heard)
    assert set(heard) == {(address, lan.mac_of_peer, "p0")}


async def test_frames_about_other_addresses_are_not_heard(lan: Lan) -> None:
    heard: list[Heard] = []
    async with following(lan.node, {IPV4: "p0"}, heard):
        places = dict.fromkeys(("192.0.2.81", IPV6, IPV4), "eth0")
        async with following(lan.peer, places, []) as other:
            for address in places:  # The one that is followed comes last.
                other.announce(address, "eth0")
            await until(lambda: heard)
    assert {each[0] for each in heard} == {IPV4}


async def test_frames_of_another_vlan_are_not_heard(lan: Lan) -> None:
    """On a trunk port they arrive, too, and the same address may be used in each VLAN."""
    heard: list[Heard] = []
    places = dict.fromkeys((IPV4, IPV6), lan.interface)
    async with following(lan.node, places, heard):
        with lan.peer.inside():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with sock:
            sock.bind((lan.there, 0))
            for number, address in enumerate((IPV4, IPV6)):
                foreign = frames.announcements(address, "02:00:00:00:00:05")
                same = frames.announcements(address, f"02:00:00:00:01:0{number}")
                for frame in foreign:
                    sock.send(frame[:12] + b"\x81\x00\x00\x05" + frame[12:])
                for frame in same:  # VLAN 0 is none, but a priority.
                    sock.send(frame[:12] + b"\x81\x00\x00\x00" + frame[12:])
        await until(lambda: {each[0] for each in heard} == {IPV4, IPV6})
    assert {mac for _, mac, _ in heard} == {"02:00:00:00:01:00", "02:00:00:00:01:01"}


async def test_frames_for_another_interface_on_top_are_not_heard() -> None:
    if not _exists("macvlan"):
        pytest.skip("the kernel has no interfaces of type macvlan")
    heard: list[Heard] = []
    with segment() as lan:
        lan.node.ip(f"link add link {lan.interface} name mv0 type macvlan", "link set mv0 up")
        with lan.node.inside():
            upper = read_segments()["mv0"].mac
        with lan.peer.inside():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with sock:
            sock.bind((lan.there, 0))
            async with following(lan.node, {IPV4: lan.interface}, heard):
                for to, sender in ((upper, "02:00:00:00:00:05"), (lan.mac, "02:00:00:00:00:06")):
                    frame = frames.announcements(IPV4, sender)[0]
                    sock.send(bytes.fromhex(to.replace(":", "")) + frame[6:])
                await until(lambda: heard)
    assert {mac for _, mac, _ in heard} == {"02:00:00:00:00:06"}


async def test_many_addresses_are_heard(lan: Lan) -> None:
    """More than a filter can compare."""
    many = [f"192.0.2.{i}" for i in range(10, 250)] + [f"198.51.100.{i}" for i in range(1, 200)]
    many += [f"2001:db8:1::1:{i:x}" for i in range(300)]
    heard: list[Heard] = []
    async with (
        following(lan.node, dict.fromkeys(many, "p0"), heard),
        following(lan.peer, dict.fromkeys(many, "eth0"), []) as other,
    ):
        for address in (many[-1], many[0]):
            other.announce(address, "eth0")
        await until(lambda: len(heard) == 3)
    assert {each[0] for each in heard} == {many[0], many[-1]}
    assert len(heard) == 3, "one advertisement, and ARP in both forms"


@pytest.mark.parametrize("address", [IPV4, IPV6])
@pytest.mark.parametrize("privileged", [True, False], ids=["frames", "neighbour table"])
async def test_probe(lan: Lan, address: str, privileged: bool) -> None:
    """It finds another machine that has the address, and nothing if there is none, whatever the
    neighbour table said before."""
    async with following(lan.node, {}, []) as wire:
        if not privileged:
            wire.reason = UNPRIVILEGED
        lan.node.ip(f"neigh replace {address} dev p0 lladdr 02:00:00:00:00:98 nud stale")
        assert await wire.probe(address, "p0") is None
        with lan.peer.inside():
            announced_addresses.put({address: "eth0"}, lifetime=60)
        try:
            assert await wire.probe(address, "p0", patience=PATIENCE) == lan.mac_of_peer
        finally:
            with lan.peer.inside():
                announced_addresses.remove({address: "eth0"})
        assert await wire.probe(address, "eth7") is None, "there is no such interface"


async def test_a_probe_is_not_answered_by_this_machine(lan: Lan) -> None:
    async with following(lan.node, {IPV4: "p0"}, []) as wire:
        with lan.node.inside():
            announced_addresses.put({IPV4: "p0"}, lifetime=60)
        try:
            assert await wire.probe(IPV4, "p0") is None
        finally:
            with lan.node.inside():
                announced_addresses.remove({IPV4: "p0"})


async def test_two_interfaces_in_one_subnet() -> None:
    """Our own frames come back by the other interface, and are not taken for another machine's."""
    with namespace("node") as node, namespace("lan") as switch:
        switch.ip("link add br0 type bridge forward_delay 0", "link set br0 up")
        for name, number in (("eth0", 1), ("eth1", 2)):
            node.ip(f"link add {name} type veth peer name p{number} netns {switch.name}")
            switch.ip(f"link set p{number} master br0 up")
            node.ip(f"link set {name} up", f"addr add 192.0.2.{number}/24 dev {name}")
        other = "192.0.2.81"
        heard: list[Heard] = []
        with captured(node, "eth1") as back:
            async with following(node, {IPV4: "eth1", other: "eth0"}, heard) as wire:
                assert wire.announce(other, "eth0")
                await until(lambda: other in _addresses(back()))
                with switch.inside():
                    async with Wire(lambda *_: None) as stranger:
                        switch.ip("addr add 192.0.2.9/24 dev br0")
                        stranger.follow({IPV4: "br0"}, read_segments())
                        stranger.announce(IPV4, "br0")
                await until(lambda: heard)
        assert {each[0] for each in heard} == {IPV4}
        assert {each[2] for each in heard} == {"eth1"}


async def test_an_interface_that_goes_and_comes_back() -> None:
    """Down and up, deleted and made again, under another name: it is followed again each time, and
    nothing is raised meanwhile."""
    heard: list[Heard] = []
    with segment() as lan, lan.node.inside():
        async with Wire(lambda *each: heard.append(each)) as wire:

            def follow(name: str) -> None:
                with lan.node.inside():
                    wire.follow({IPV4: name}, read_segments())

            async def is_heard(name: str) -> None:
                heard.clear()
                mac = lan.mac_of_peer
                async with following(lan.peer, {IPV4: "eth0"}, []) as other:
                    async with asyncio.timeout(PATIENCE):
                        while (IPV4, mac, name) not in heard:
                            other.announce(IPV4, "eth0")
                            await asyncio.sleep(0.05)

            follow("p0")
            await is_heard("p0")
            lan.node.ip("link set p0 down")
            assert not wire.announce(IPV4, "p0")
            follow("p0")
            lan.node.ip("link set p0 up")
            await is_heard("p0")
            lan.node.ip("link set p0 down", "link set p0 name lan7", "link set lan7 up")
            follow("lan7")
            await is_heard("lan7")
            lan.node.ip("link del lan7")
            assert not wire.announce(IPV4, "lan7")
            follow("lan7")
            assert not wire.announce(IPV4, "lan7")
            assert await wire.probe(IPV4, "lan7") is None
            lan.peer.ip(
                f"link add eth0 type veth peer name lan7 netns {lan.node.name}", "link set eth0 up"
            )
            lan.node.ip("link set lan7 up", "addr add 192.0.2.1/24 dev lan7")
            follow("lan7")
            await is_heard("lan7")
            assert wire.announce(IPV4, "lan7")


async def test_a_storm_leaves_time_for_other_work(lan: Lan) -> None:
    """Frames about an address of ours, as many as a neighbour can send: the loop goes on turning,
    and takes a small part of a processor."""
    heard: list[Heard] = []
    mac = "02:00:00:00:00:77"
    storm = frames.announcements(IPV4, mac)[0]
    with lan.peer.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("eth0", 0))
        async with following(lan.node, {IPV4: "p0"}, heard):

            def send() -> None:
                for _ in range(50_000):
                    sender.send(storm)

            sending = asyncio.get_running_loop().run_in_executor(None, send)
            turns = 0
            began = time.monotonic()
            while not sending.done():
                await asyncio.sleep(0)
                turns += 1
            seconds = time.monotonic() - began
            await sending
    assert heard, "some of them are heard"
    # At most 64 every 20 ms, and what is read before the first rest.
    assert len(heard) <= 64 * (seconds / 0.02 + 2)
    assert turns > len(heard) / 64


async def test_frames_about_others_do_not_wake_it(lan: Lan) -> None:
    """A storm of ARP about other addresses is dropped by the kernel."""
    heard: list[Heard] = []
    async with following(lan.node, {IPV4: "p0", IPV6: "p0"}, heard) as wire:
        (tap,) = wire._taps.values()
        read = [0]
        original = tap._readable

        def counted(kind: int) -> None:
            read[0] += 1
            original(kind)

        loop = asyncio.get_running_loop()
        for kind, sock in tap._sockets.items():
            loop.add_reader(sock.fileno(), counted, kind)
        noise = frames.announcements("192.0.2.81", "02:00:00:00:00:77")[0]
        with lan.peer.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("eth0", 0))
            for _ in range(2000):
                sender.send(noise)
            sender.send(frames.announcements(IPV4, "02:00:00:00:00:77")[0])
        await until(lambda: heard)
    assert read[0] <= 2


async def test_announced_by_the_kernel(lan: Lan) -> None:
    """Without frames of its own, an IPv4 address reaches neighbours by a question that the kernel
    asks, whose sender has the address."""
    async with following(lan.node, {}, []) as wire:
        wire.reason = UNPRIVILEGED
        assert not wire.announce(IPV4, "p0"), "this machine does not have it"
        with lan.node.inside():
            announced_addresses.put({IPV4: "p0", IPV6: "p0"}, lifetime=60)
        try:
            lan.node.ip("neigh replace 192.0.2.254 dev p0 lladdr 02:00:00:00:00:96 nud stale")
            with captured(lan.peer, "eth0") as got:
                assert wire.announce(IPV4, "p0")
                await until(lambda: frames.Heard(IPV4, lan.mac) in map(frames.parse_frame, got()))
            assert not wire.announce(IPV6, "p0")
        finally:
            with lan.node.inside():
                announced_addresses.remove({IPV4: "p0", IPV6: "p0"})
            lan.node.ip("neigh flush dev p0")


def test_without_the_capability(lan: Lan) -> None:
    """There is a reason, and nothing is raised."""
    script = """
import asyncio
from uproxy.host.segments import read_segments
from uproxy.host.wire import Wire
async def main():
    async with Wire(print) as wire:
        wire.follow({"192.0.2.80": "p0"}, read_segments())
        print(wire.possible, wire.announce("192.0.2.80", "p0"), wire.reason)
        print(await wire.probe("192.0.2.2", "p0"), await wire.probe("192.0.2.99", "p0"))
asyncio.run(main())
"""
    without = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
    first, second = lan.node.run(*without, sys.executable, "-c", script).splitlines()
    assert first == f"False False {UNPRIVILEGED}"
    assert second == f"{lan.mac_of_peer} None"


def test_segments_of_this_machine() -> None:
    """Ports of bridges are none; subnets are without the addresses that are
    alone."""
    with namespace("node") as node:
        node.ip(
            "link add br0 type bridge",
            "link add port0 type veth peer name port1",
            "link set port0 master br0",
            "link add quiet0 type veth peer name quiet1",
            "link set quiet0 arp off",
            "link set br0 up",
            "link set port0 up",
            "addr add 192.0.2.1/24 dev br0",
            "addr add 198.51.100.1/25 dev br0",
            "addr add 203.0.113.9/32 dev br0",
            "addr add 2001:db8:1::1/64 dev br0",
        )
        with node.inside():
            announced_addresses.put({IPV4: "br0", IPV6: "br0"})
            found = read_segments()
            assert found.keys() >= {"br0", "port1", "quiet0", "quiet1"}
            assert not found.keys() & {"lo", "port0"}
            assert found["br0"].subnets == ("192.0.2.0/24", "198.51.100.0/25", "2001:db8:1::/64")
            assert found["br0"].arp
            assert not found["quiet0"].arp
            assert found["quiet1"].arp
            assert not found["br0"].carrier, "its only port has none"
            assert not found["br0"].wireless
            node.ip("link set port1 up")
            wait_for("carrier", lambda: read_segments()["br0"].carrier, patience=PATIENCE)
            found = read_segments()
            assert re.fullmatch("fe80::[0-9a-f:]+", found["br0"].link_local)
            assert found["br0"].index == socket.if_nametoindex("br0")


def test_a_wireless_interface_is_told_by_sysfs(tmp_path: Path) -> None:
    with namespace("node") as node:
        node.ip("link add wlan0 type veth peer name eth0")
        (tmp_path / "wlan0" / "phy80211").mkdir(parents=True)
        with node.inside():
            found = read_segments(str(tmp_path))
        assert found["wlan0"].wireless
        assert not found["eth0"].wireless


def _exists(kind: str) -> bool:
    """Whether the kernel has such interfaces."""
    with namespace("trial") as space:
        space.ip("link add p0 type veth peer name p1")
        words = ["ip", "-n", space.name, "link", "add", "x0"]
        words += ["link", "p0"] if "vlan" in kind else []
        words += ["type", kind, *(["id", "7"] if kind == "vlan" else [])]
        return not subprocess.run(words, capture_output=True, check=False).returncode


def _addresses(got: list[bytes]) -> set[str]:
    return {found.address for each in got if (found := frames.parse_frame(each)) is not None}


def _nodad(address: str) -> str:
    return "nodad" if ":" in address else ""
