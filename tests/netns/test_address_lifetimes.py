"""Addresses on interfaces for seconds: the kernel answers for them, and takes them away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.netns import kit
from tests.netns.kit import Namespace, World, world
from tests.netns.node import wait_for
from uproxy.host import announced_addresses
from uproxy.host.change_monitor import AddressMonitor, SegmentMonitor
from uproxy.host.namespace_lock import ANNOUNCEMENTS, Locked, take_lock

pytestmark = kit.needs()

IPV4, IPV6 = "192.0.2.70", "2001:db8:1::70"
BOTH: Final = {IPV4: "eth0", IPV6: "eth0"}
PATIENCE: Final = 15.0


@pytest.fixture(scope="module")
def lan() -> Iterator[World]:
    with world(local=0, remote=0) as made:
        yield made


@pytest.fixture
def node(lan: World) -> Iterator[Namespace]:
    """The namespace of a node, which this thread is in; it holds nothing afterwards."""
    with lan.node.space.inside():
        yield lan.node.space
        announced_addresses.remove_announced_addresses()


def knock(space: Namespace, address: str) -> None:
    """Send a datagram, so that the kernel asks for the neighbour."""
    with space.socket(kit.family_of(address), socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", (address, 9))


def shown(space: Namespace, address: str) -> dict[str, Any]:
    """What ip(8) says about an address; nothing if no interface has it."""
    for interface in json.loads(space.run("ip", "-json", "-d", "addr")):
        for each in interface["addr_info"]:
            if each.get("local") == address:
                return {**each, "interface": interface["ifname"]}
    return {}


@pytest.mark.parametrize("address", BOTH)
def test_as_it_must_be(node: Namespace, address: str) -> None:
    """Alone in its subnet, for 3 s, deprecated, without a route of its subnet or a check."""
    assert announced_addresses.put({address: "eth0"}) == {}
    found = shown(node, address)
    assert found["prefixlen"] == (128 if ":" in address else 32)
    assert 0 < found["valid_life_time"] <= announced_addresses.LIFETIME == 3
    assert found["preferred_life_time"] == 0
    assert found["deprecated"]
    assert found["noprefixroute"]
    assert found["scope"] == "global"
    assert found.get("protocol", "117") in ("117", 117)
    held = announced_addresses.held()
    assert held[address].interface == "eth0"
    assert 0 < held[address].remaining <= 3
    assert announced_addresses.remove({address: "eth0"}) == {}
    assert shown(node, address) == {}
    assert announced_addresses.remove({address: "eth0"}) == {}, "twice is fine"


@pytest.mark.parametrize("address", BOTH)
def test_gone_when_it_is_not_renewed(node: Namespace, address: str) -> None:
    """Not before its lifetime is over, and renewing begins the lifetime anew."""
    began = time.monotonic()
    announced_addresses.put({address: "eth0"})
    while time.monotonic() < began + 4:
        assert announced_addresses.renew({address: "eth0"}) == {}
        assert shown(node, address)
        time.sleep(0.1)
    last = time.monotonic()
    announced_addresses.renew({address: "eth0"})
    wait_for("the kernel", lambda: not shown(node, address), patience=PATIENCE)
    assert time.monotonic() - last >= announced_addresses.LIFETIME - 0.1
    table = node.run("ip", "route", "show", "table", "all") + node.run("ip", "-6", "route")
    assert address not in table, "its local route goes with it"


@pytest.mark.parametrize("address", BOTH)
def test_the_kernel_answers_neighbours(lan: World, node: Namespace, address: str) -> None:
    """The first question, which is multicast, and the unicast probe of a neighbour that wants to
    know whether the address is still there."""
    announced_addresses.put({address: "eth0"}, lifetime=60)
    client = lan.client.space
    knock(client, address)
    family = "-6" if ":" in address else "-4"

    def known() -> dict[str, Any]:
        found = json.loads(client.run("ip", family, "-json", "neigh", "show", address))
        return found[0] if found else {}

    wait_for("an answer", lambda: "lladdr" in known(), patience=PATIENCE)
    mac = known()["lladdr"]
    assert mac == node.run("cat", "/sys/class/net/eth0/address").strip()
    # In the state PROBE the kernel sends unicast questions; the answer makes it REACHABLE.
    client.ip(f"neigh change {address} dev eth0 lladdr {mac} nud probe")
    wait_for("an answer", lambda: known()["state"] == ["REACHABLE"], patience=PATIENCE)


def test_listeners_serve_again_when_it_returns(lan: World, node: Namespace) -> None:
    """A fail-over needs no bind(2): IP_FREEBIND allows to bind it on every node before."""
    for address in BOTH:
        family = kit.family_of(address)
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            level, option = (socket.SOL_IP, 15) if family == socket.AF_INET else (41, 78)
            listener.setsockopt(level, option, 1)
            listener.bind((address, 8080))
            listener.listen()
            for _ in range(2):
                announced_addresses.put({address: "eth0"})
                with lan.client.space.socket(family, socket.SOCK_STREAM) as client:
                    client.settimeout(PATIENCE)
                    client.connect((address, 8080))
                    accepted, _ = listener.accept()
                    with accepted:
                        assert accepted.getsockname()[0] == address
                announced_addresses.remove({address: "eth0"})


def test_it_is_not_the_source_of_anything(lan: World, node: Namespace) -> None:
    """Neither to the subnet nor beyond it, even if the node's own address is set anew, and so comes
    after it in the list."""
    announced_addresses.put(BOTH, lifetime=60)
    node.ip("route add default via 192.0.2.100", "route add ::/0 via 2001:db8:1::100 dev eth0")
    try:
        for target in ("192.0.2.100", "198.18.0.1", "2001:db8:1::100", "2001:db8:9::1"):
            with socket.socket(kit.family_of(target), socket.SOCK_DGRAM) as sock:
                sock.connect((target, 9))
                assert sock.getsockname()[0] in {lan.node.ipv4, lan.node.ipv6, *lan.second}, target
        own = node.run("ip", "-4", "-json", "addr", "show", "dev", "eth0", "scope", "global")
        first = json.loads(own)[0]["addr_info"][0]["local"]
        assert first == lan.node.ipv4, "a kubelet takes the first address"
    finally:
        node.ip("route del default", "route del ::/0 dev eth0")


def test_addresses_of_others_are_left_alone(lan: World, node: Namespace) -> None:
    """One that an interface has for ever, whether as one of a subnet or alone."""
    node.ip("addr add 192.0.2.71/32 dev eth0", "addr add 2001:db8:1::71/128 dev eth0 nodad")
    foreign = {"192.0.2.71": "eth0", "2001:db8:1::71": "eth0", lan.node.ipv6: "eth0"}
    try:
        failures = announced_addresses.put({**foreign, IPV4: "eth0"})
        assert {each: type(why) for each, why in failures.items()} == {
            "192.0.2.71": FileExistsError,
            "2001:db8:1::71": FileExistsError,
            **({lan.node.ipv6: FileExistsError} if lan.node.ipv6 in failures else {}),
        }
        assert announced_addresses.held().keys() <= {IPV4, lan.node.ipv6}
        assert announced_addresses.hold_over(lifetime=60) == [IPV4]
        assert announced_addresses.remove_announced_addresses() == [IPV4]
        for each in foreign:
            assert shown(node, each)["valid_life_time"] == 0xFFFFFFFF, "as it was"
    finally:
        node.ip("addr del 192.0.2.71/32 dev eth0", "addr del 2001:db8:1::71/128 dev eth0")


def test_an_interface_that_is_not_there(node: Namespace) -> None:
    failures = announced_addresses.put({IPV4: "eth7", IPV6: "eth0"})
    assert {each: why.strerror for each, why in failures.items()} == {IPV4: "No such device"}
    assert announced_addresses.held().keys() == {IPV6}
    assert announced_addresses.remove({IPV4: "eth7", IPV6: "eth0"}) == {}


def test_what_another_program_removes_is_put_back(node: Namespace) -> None:
    announced_addresses.put(BOTH)
    node.ip(f"addr del {IPV4}/32 dev eth0", f"addr del {IPV6}/128 dev eth0")
    assert announced_addresses.held() == {}
    assert announced_addresses.renew(BOTH) == {}
    assert announced_addresses.held().keys() == BOTH.keys()


def test_a_successor_takes_over(node: Namespace) -> None:
    """`put` renews what a predecessor has left."""
    announced_addresses.put(BOTH, lifetime=2)
    assert announced_addresses.put(BOTH, lifetime=60) == {}
    assert {each.remaining > 10 for each in announced_addresses.held().values()} == {True}


def test_what_a_predecessor_left_is_held_over(node: Namespace) -> None:
    """It is renewed, and never shortened."""
    announced_addresses.put(BOTH)
    assert sorted(announced_addresses.hold_over(lifetime=60)) == sorted(BOTH)
    assert {each.remaining > 10 for each in announced_addresses.held().values()} == {True}
    assert announced_addresses.hold_over() == []
    assert {each.remaining > 10 for each in announced_addresses.held().values()} == {True}


def test_hold_over_leaves_those_of_a_running_one_alone(node: Namespace) -> None:
    announced_addresses.put(BOTH)
    with take_lock(ANNOUNCEMENTS):
        assert announced_addresses.hold_over(lifetime=60) == []
        with pytest.raises(Locked, match="another uproxy announces addresses on this node"):
            announced_addresses.remove_announced_addresses()
    assert {each.remaining <= 3 for each in announced_addresses.held().values()} == {True}


def test_it_is_the_first_thing_that_a_process_does() -> None:
    """Before `uproxy run` knows whether its flags make sense, and before it imports its parts."""
    script = (
        "import sys; from uproxy import cli; sys.argv[1:] = ['run', '--no-such-flag']\n"
        "cli.hold_over = lambda: print('uproxy.cli.commands.run' in sys.modules)\n"
        "cli.main()"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == "False\n"
    assert "no-such-flag" in done.stderr


def test_cleanup_removes_them(node: Namespace) -> None:
    announced_addresses.put(BOTH, lifetime=60)
    with take_lock(ANNOUNCEMENTS):
        words = node.command(sys.executable, "-m", "uproxy.cli", "cleanup")
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert "another uproxy announces addresses on this node; stop it first" in done.stderr
        assert announced_addresses.held().keys() == BOTH.keys()
    printed = node.run(sys.executable, "-m", "uproxy.cli", "cleanup")
    assert "announced addresses: 2 removed" in printed.splitlines()
    assert announced_addresses.held() == {}


def test_little_is_imported_for_it() -> None:
    """A process that starts has up to 3 s, less the time in which its predecessor was dead."""
    script = "import sys, uproxy.host.announced_addresses; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"asyncio", "click", "json", "logging", "subprocess"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_of_a_process_that_cannot_withdraw(node: Namespace, number: signal.Signals) -> None:
    script = (
        "import time\nfrom uproxy.host import announced_addresses as it\n"
        f"it.put({BOTH!r})\nprint('put', flush=True)\n"
        f"while True:\n time.sleep(0.5)\n it.renew({BOTH!r})"
    )
    words = node.command(sys.executable, "-c", script)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "put\n"
            stopped = time.monotonic()
            os.kill(process.pid, number)
            wait_for("the kernel", lambda: not announced_addresses.held(), patience=PATIENCE)
            assert time.monotonic() - stopped < announced_addresses.LIFETIME + 2
        finally:
            process.kill()


@pytest.mark.parametrize("monitor", [AddressMonitor, SegmentMonitor])
async def test_renewals_give_no_notice(
    lan: World, monitor: type[AddressMonitor | SegmentMonitor]
) -> None:
    """Or the routing table would be looked at twice a second. Others' addresses do give notice."""
    space = lan.node2.space
    with space.inside():
        async with monitor() as changes:
            while await changes.wait(0.3):  # Whatever else is still new in this namespace.
                pass
            announced_addresses.put(BOTH)
            announced_addresses.renew(BOTH)
            assert await changes.wait(0.3) is (not _kernel_keeps_protocol())
            space.ip("addr add 192.0.2.72/32 dev eth0")
            assert await changes.wait(PATIENCE)
            space.ip("addr del 192.0.2.72/32 dev eth0")
            assert await changes.wait(PATIENCE)
            announced_addresses.remove(BOTH)
            assert await changes.wait(PATIENCE)
            await asyncio.sleep(0)


def test_a_thousand_are_renewed(node: Namespace) -> None:
    """In batches, and each of them really."""
    many = {f"192.0.{2 + i // 250}.{1 + i % 250}": "eth0" for i in range(250, 1100)}
    many |= {f"2001:db8:1::2:{i:x}": "eth0" for i in range(150)}
    assert announced_addresses.put(many) == {}
    assert announced_addresses.renew(many, lifetime=60) == {}
    held = announced_addresses.held()
    assert held.keys() == many.keys()
    assert min(each.remaining for each in held.values()) > 10
    assert announced_addresses.remove_announced_addresses() == sorted(many)
    assert announced_addresses.held() == {}


def test_many_ipv6_addresses_are_renewed_less_often() -> None:
    few = [f"2001:db8::{i:x}" for i in range(250)] + [f"192.0.2.{i}" for i in range(250)]
    assert announced_addresses.renewal_period(few) == 0.5
    assert announced_addresses.renewal_period([*few, "2001:db8::ffff"]) == 1.0


def _kernel_keeps_protocol() -> bool:
    return tuple(map(int, os.uname().release.split(".")[:2])) >= (5, 18)
