"""What the node knows about the addresses of its interfaces."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.netns import kit
from tests.netns.kit import Namespace, namespace
from uproxy.host import claim_routes
from uproxy.host.change_monitor import AddressMonitor
from uproxy.host.claims import Claims
from uproxy.host.essential_addresses import gateways
from uproxy.host.interfaces import read_local_addresses

pytestmark = kit.needs()

SOON = 5.0
"""Seconds. A notice that is sent at once comes well within them."""


@pytest.fixture
def space() -> Iterator[Namespace]:
    """A node with one interface; what runs in its test makes threads and sockets there."""
    with namespace("node") as made:
        made.ip("link add eth0 type veth peer name peer", "link set eth0 up", "link set peer up")
        made.ip("addr add 192.0.2.1/24 dev eth0")
        with made.inside():
            yield made


async def test_all_but_those_of_links(space: Namespace) -> None:
    space.ip("addr add 2001:db8::1/64 dev eth0 nodad", "addr add 192.0.2.11/24 dev eth0")
    expected = {"127.0.0.1", "::1", "192.0.2.1", "192.0.2.11", "2001:db8::1"}
    assert await read_local_addresses() == expected


async def test_an_address_that_may_be_a_duplicate_is_not_there_yet(space: Namespace) -> None:
    """It cannot be bound; when it can, that is news."""
    space.write_sysctls({"ipv6/conf/eth0/accept_dad": 1, "ipv6/conf/eth0/dad_transmits": 1})
    async with AddressMonitor() as monitor:
        space.ip("addr add 2001:db8::2/64 dev eth0")
        assert await monitor.wait(SOON)
        assert "2001:db8::2" not in await read_local_addresses()
        while await monitor.wait(SOON):
            if "2001:db8::2" in await read_local_addresses():
                return
    raise AssertionError("the end of the check was no news")


@pytest.mark.parametrize("compatible", [0, 1])
def test_gateways_of_routes_that_name_but_the_number_of_a_next_hop(
    space: Namespace, compatible: int
) -> None:
    """As routing daemons set them; the kernel may leave the gateway out of such a route."""
    space.write_sysctls({"ipv4/nexthop_compat_mode": compatible})
    space.ip(
        "addr add 2001:db8::1/64 dev eth0 nodad",
        "nexthop add id 1 via 192.0.2.254 dev eth0",
        "nexthop add id 2 via 192.0.2.253 dev eth0",
        "nexthop add id 3 via 2001:db8::fe dev eth0",
        "nexthop add id 10 group 1/2",
        "route add default nhid 10",
        "route add ::/0 nhid 3",
    )
    assert gateways() == {"192.0.2.254", "192.0.2.253", "2001:db8::fe"}


@pytest.mark.parametrize("address", ["192.0.2.7/24", "2001:db8::7/64"])
async def test_news(space: Namespace, address: str) -> None:
    nodad = "nodad" if ":" in address else ""
    async with AddressMonitor() as monitor:
        assert not await monitor.wait(0)
        space.ip(f"addr add {address} dev eth0 {nodad}")
        assert await monitor.wait(SOON)
        assert address.split("/")[0] in await read_local_addresses()
        space.ip(f"addr del {address} dev eth0")
        assert await monitor.wait(SOON)
        assert address.split("/")[0] not in await read_local_addresses()


async def test_a_flood_of_notices_counts_as_one(space: Namespace) -> None:
    """More than the kernel's queue holds: it drops some, and says so."""
    async with AddressMonitor() as monitor:
        many = [f"198.51.{i >> 7}.{1 + (i & 127)}/32" for i in range(1000)]
        space.ip(*(f"addr add {each} dev eth0" for each in many))
        assert await monitor.wait(SOON)
        await asyncio.sleep(0)
        assert len(await read_local_addresses()) == 1003


async def test_claims_are_no_addresses_of_interfaces(space: Namespace) -> None:
    async with AddressMonitor() as monitor, Claims(enabled=True) as claims:
        assert await claims.claim(["203.0.113.7", "2001:db8:3::7"]) == {}
        assert claims.claimed == {"203.0.113.7", "2001:db8:3::7"}
        assert not await monitor.wait(0)
        assert await read_local_addresses() == {"127.0.0.1", "::1", "192.0.2.1"}
    assert claims.claimed == await asyncio.to_thread(claim_routes.held_claims) == set()


async def test_one_process_at_a_time_claims(space: Namespace) -> None:
    async with Claims(enabled=True) as first:
        await first.claim(["203.0.113.7"])
        async with Claims(enabled=True) as second:
            assert second.reason == "another uproxy claims the addresses of this node"
            assert second.claimed == set()
        with pytest.raises(OSError, match="another uproxy"):
            await asyncio.to_thread(claim_routes.remove_claims)
        assert await asyncio.to_thread(claim_routes.held_claims) == {"203.0.113.7"}
    async with Claims(enabled=True) as third:
        assert third.reason == ""


@pytest.fixture
def squatter(space: Namespace) -> Iterator[None]:
    """A process of the user "nobody" that has taken the name of the lock."""
    script = "import os, socket; os.setuid(65534); s = socket.socket(socket.AF_UNIX)"
    script += "; s.bind('\\0uproxy-claims'); s.listen(); print('bound', flush=True); input()"
    command = space.command(sys.executable, "-c", script)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"bound\n"
        yield
        process.kill()


@pytest.mark.usefixtures("squatter")
async def test_a_lock_of_a_process_without_privileges_does_not_count(space: Namespace) -> None:
    async with Claims(enabled=True) as claims:
        assert claims.reason == ""
        assert await claims.claim(["203.0.113.7"]) == {}


async def test_what_cannot_be_claimed_says_why(space: Namespace) -> None:
    space.write_sysctls({"ipv6/conf/lo/disable_ipv6": 1})
    async with Claims(enabled=True) as claims:
        failures = await claims.claim(["203.0.113.7", "2001:db8:3::7"])
        assert claims.claimed == {"203.0.113.7"}
    reason = "IPv6 is disabled on the interface lo (net.ipv6.conf.lo.disable_ipv6)"
    assert failures == {"2001:db8:3::7": reason}
