"""Facts about the machine: how they are read, and what happens when they cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from uproxy.control.machine import Machine, MachineCalls
from uproxy.core.recently_seen import RecentlySeen
from uproxy.host.essential_addresses import name_servers, resolve_hosts
from uproxy.host.interfaces import Interfaces


def test_name_servers_of_odd_files(tmp_path: Path) -> None:
    odd, more = tmp_path / "odd", tmp_path / "more"
    odd.write_bytes(
        b"# nameserver 192.0.2.1\nnameserver\nnameserver 192.0.2.2 # ours\n"
        b"\tnameserver\t2001:DB8::2\nnameserver fe80::1%eth0\nnameserver \xff\nsearch x\n"
    )
    more.write_text("nameserver 127.0.0.53\n")
    paths = [odd, tmp_path / "missing", tmp_path, more]
    assert name_servers(paths) == {"192.0.2.2", "2001:db8::2", "127.0.0.53"}


def test_hosts_of_urls() -> None:
    urls = ("https://192.0.2.9:6443", "https://[2001:DB8::9]", "http://u:p@192.0.2.8:3128", "", "?")
    assert resolve_hosts(urls) == {"192.0.2.9", "2001:db8::9", "192.0.2.8"}
    assert "127.0.0.1" in resolve_hosts(["https://localhost:6443"])


async def test_a_start_without_the_addresses_of_the_machine_is_a_start() -> None:
    """They come later; the loopback ones, and wildcards, are served all the same."""
    answers = iter([OSError("no memory"), ValueError("not a message")])

    async def read_interfaces() -> Interfaces:
        for error in answers:
            raise error
        return Interfaces(frozenset({"192.0.2.1"}))

    changes: asyncio.Queue[frozenset[str]] = asyncio.Queue()
    found = Machine(calls=MachineCalls(read_interfaces=read_interfaces))
    await found.read_all()
    assert found.trouble == "cannot read the addresses of this machine: no memory"
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        monitoring = tasks.create_task(found.monitor(changes.put_nowait))
        assert await changes.get() == {"192.0.2.1"}
        monitoring.cancel()
    assert found.trouble == ""


def test_what_was_seen_lately_still_counts() -> None:
    seen = RecentlySeen(600.0)
    seen.see(["192.0.2.1", "192.0.2.2"], 0.0)
    seen.see(["192.0.2.2"], 600.0)
    assert seen.items == {"192.0.2.1", "192.0.2.2"}
    seen.see([], 600.5)
    assert seen.items == {"192.0.2.2"}


async def test_a_name_that_does_not_exist_hides_no_other_address_of_the_api_server() -> None:
    urls = ["https://192.0.2.9", "https://not.a.name.invalid", "https://localhost:6443"]

    def resolve(wanted: Sequence[str]) -> frozenset[str]:
        if wanted != ("https://not.a.name.invalid",):
            return resolve_hosts(wanted)
        raise OSError("no such name")

    found = Machine(lambda: urls, MachineCalls(resolve_hosts=resolve))
    await found.resolve()
    assert {"192.0.2.9", "127.0.0.1"} <= found.servers.keys()


async def test_addresses_that_must_not_be_handed_out_are_named_for_all_nodes() -> None:
    """Other nodes' Services are refused them as well, and their Events say why."""

    async def read_interfaces() -> Interfaces:
        return Interfaces(frozenset({"192.0.2.1"}), broadcast=frozenset({"192.0.2.255"}))

    found = Machine(
        lambda: ["https://192.0.2.9:6443"],
        MachineCalls(
            read_interfaces=read_interfaces,
            gateways=lambda: frozenset({"192.0.2.254"}),
            name_servers=lambda: frozenset({"192.0.2.1", "192.0.2.53"}),
        ),
    )
    await found.read_all()
    others = {
        "192.0.2.255": "a broadcast address of node one",
        "192.0.2.254": "node one's gateway",
        "192.0.2.53": "a DNS server of node one",
        "192.0.2.9": "the API server's address",
    }
    assert found.occupied("one", own=False) == others
    own = {"192.0.2.1": "an address of node one"}
    assert found.occupied("one", own=True) == others | own


def test_an_address_of_the_api_server_counts_as_soon_as_it_is_known() -> None:
    """And not only when it has been looked up, which happens once a minute."""
    urls = ["https://192.0.2.9:6443", "https://name.example", ""]
    found = Machine(lambda: urls)
    assert found.servers == {"192.0.2.9": "the API server's address"}
    urls.append("https://[2001:DB8::9]:6443")
    assert found.servers.keys() == {"192.0.2.9", "2001:db8::9"}


async def test_what_cannot_be_read_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    broken = False

    async def read_interfaces() -> Interfaces:
        return Interfaces(frozenset({"192.0.2.1"}), frozenset({"192.0.2.255"}))

    def gateways() -> frozenset[str]:
        if broken:
            raise OSError("no netlink")
        return frozenset({"192.0.2.254"})

    def name_servers() -> frozenset[str]:
        """Of a file that is being written, if broken."""
        return frozenset({"192.0.2.53"} if not broken else ())

    urls = ["https://192.0.2.9"]
    found = Machine(
        lambda: urls,
        MachineCalls(
            read_interfaces=read_interfaces,
            gateways=gateways,
            name_servers=name_servers,
        ),
        route_pause=0.0,
    )
    await found.read_all()
    before = found.reserved, found.servers
    assert before == (
        {"192.0.2.254": "this node's gateway", "192.0.2.255": "a broadcast address of this node"},
        {"192.0.2.9": "the API server's address", "192.0.2.53": "a DNS server of this node"},
    )
    broken = True
    urls[:] = ["https://not.a.name.invalid"]
    await found.read_all()
    await found.read_all()
    assert (found.reserved, found.servers) == before
    assert len(caplog.records) == 2, "each trouble is logged once"


async def test_announced_addresses_are_not_those_of_the_machine() -> None:
    """They come and go with a fail-over, which is to change no route."""
    there = {"192.0.2.1"}

    async def read_interfaces() -> Interfaces:
        return Interfaces(frozenset(there))

    changes: asyncio.Queue[frozenset[str]] = asyncio.Queue()
    found = Machine(calls=MachineCalls(read_interfaces=read_interfaces))
    found.announced = lambda: {"192.0.2.7"}
    await found.read()
    there.add("192.0.2.7")
    await found.read()
    assert found.addresses == {"192.0.2.1"}
    there.add("192.0.2.2")
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        monitoring = tasks.create_task(found.monitor(changes.put_nowait))
        assert await changes.get() == {"192.0.2.2"}
        monitoring.cancel()
