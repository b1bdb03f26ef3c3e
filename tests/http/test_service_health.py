"""healthCheckNodePorts over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.http.client import address_of, fetch, needs_ipv6, refused, taken_port
from tests.ports import free_port
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import Family
from uproxy.core.routing.service_routes import HealthCheck
from uproxy.http.health import ServiceHealthServers

ONE, TWO, THREE, FOUR = (ObjectName("ns", name) for name in ("one", "two", "three", "four"))


@dataclass
class Scene:
    """What the servers read, for a test to change."""

    hosts: dict[Family, Sequence[str]] = field(
        default_factory=lambda: {"IPv4": ["127.0.0.1"], "IPv6": ["::1"]}
    )
    healthy: bool = True

    def __post_init__(self) -> None:
        self.servers = ServiceHealthServers(
            lambda family: self.hosts[family], healthy=lambda: self.healthy
        )


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    async with made.servers:
        yield made


def health_check(port: int, counts: Mapping[Family, int]) -> HealthCheck:
    return HealthCheck(service=ONE, frontends=(), port=port, counts=counts)


def four(port: int, count: int) -> HealthCheck:
    return health_check(port, {"IPv4": count})


async def check(
    service: ObjectName,
    port: int,
    *,
    status: int,
    count: int,
    healthy: bool = True,
    host: str = "127.0.0.1",
) -> None:
    answer = await fetch((host, port), "/healthz")
    assert answer.status == status
    assert answer.json == {
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    }
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Load-Balancing-Endpoint-Weight"] == str(count)


async def test_nothing_wanted_opens_nothing() -> None:
    async with scene() as made:
        await made.servers.sync({})
        assert "0 open 0 failed" in repr(made.servers)


async def test_counts_follow_without_a_new_socket() -> None:
    port = free_port()
    async with scene() as made:
        await made.servers.sync({ONE: four(port, 0)})
        await check(ONE, port, status=503, count=0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for count, status in ((18, b"200"), (0, b"503"), (11, b"200"), (0, b"503")):
            await made.servers.sync({ONE: four(port, count)})
            await check(ONE, port, status=int(status), count=count)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.readuntil(b"\r\n")).split()[1] == status
            await reader.readuntil(b"\n}")
        writer.close()
        await writer.wait_closed()
        await made.servers.sync({})
        assert await refused(("127.0.0.1", port))


async def test_services_have_their_own_ports_and_counts() -> None:
    one, two, three, moved, new = (free_port() for _ in range(5))
    async with scene() as made:
        await made.servers.sync({ONE: four(one, 0), TWO: four(two, 0), THREE: four(three, 0)})
        await check(ONE, one, status=503, count=0)
        await check(TWO, two, status=503, count=0)
        await check(THREE, three, status=503, count=0)
        await made.servers.sync({ONE: four(one, 9), TWO: four(two, 3), THREE: four(three, 7)})
        await check(ONE, one, status=200, count=9)
        await check(TWO, two, status=200, count=3)
        await check(THREE, three, status=200, count=7)

        # One is removed, two kept, three moved, four added.
        await made.servers.sync({TWO: four(two, 3), THREE: four(moved, 0), FOUR: four(new, 0)})
        assert await refused(("127.0.0.1", one))
        assert await refused(("127.0.0.1", three))
        await check(TWO, two, status=200, count=3)
        await check(THREE, moved, status=503, count=0)
        await check(FOUR, new, status=503, count=0)
        await made.servers.sync({TWO: four(two, 0), THREE: four(moved, 7), FOUR: four(new, 6)})
        await check(TWO, two, status=503, count=0)
        await check(THREE, moved, status=200, count=7)
        await check(FOUR, new, status=200, count=6)

        made.healthy = False
        await check(TWO, two, status=503, count=0, healthy=False)
        await check(THREE, moved, status=503, count=7, healthy=False)
        await check(FOUR, new, status=503, count=6, healthy=False)
        made.healthy = True
        await check(TWO, two, status=503, count=0)
        await check(THREE, moved, status=200, count=7)
        await check(FOUR, new, status=200, count=6)
    for port in (two, moved, new):
        assert await refused(("127.0.0.1", port))


async def test_a_moved_port_answers_with_the_count_of_the_same_sync() -> None:
    before, after = free_port(), free_port()
    async with scene() as made:
        await made.servers.sync({ONE: four(before, 2)})
        await made.servers.sync({ONE: four(after, 2)})
        assert await refused(("127.0.0.1", before))
        await check(ONE, after, status=200, count=2)


async def test_two_services_can_swap_ports() -> None:
    left, right = free_port(), free_port()
    async with scene() as made:
        await made.servers.sync({ONE: four(left, 1), TWO: four(right, 2)})
        await made.servers.sync({ONE: four(right, 1), TWO: four(left, 2)})
        assert made.servers.reasons == {}
        await check(ONE, right, status=200, count=1)
        await check(TWO, left, status=200, count=2)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/healthz", "/any/thing?at=all"])
async def test_any_method_and_path(method: str, path: str) -> None:
    port = free_port()
    async with scene() as made:
        await made.servers.sync({ONE: four(port, 1)})
        answer = await fetch(("127.0.0.1", port), path, method=method)
        assert answer.status == 200
        assert answer.headers["X-Load-Balancing-Endpoint-Weight"] == "1"


async def test_body_to_the_byte() -> None:
    port = free_port()
    async with scene() as made:
        await made.servers.sync({ONE: four(port, 2)})
        assert (await fetch(("127.0.0.1", port), "/")).body == (
            b'{\n\t"service": {\n\t\t"namespace": "ns",\n\t\t"name": "one"\n\t},\n'
            b'\t"localEndpoints": 2,\n\t"serviceProxyHealthy": true\n}'
        )


@needs_ipv6
async def test_families_count_for_themselves() -> None:
    port = free_port()
    async with scene() as made:
        made.hosts = {"IPv4": ["0.0.0.0"], "IPv6": ["::"]}
        await made.servers.sync({ONE: health_check(port, {"IPv4": 1, "IPv6": 0})})
        await check(ONE, port, status=200, count=1)
        await check(ONE, port, status=503, count=0, host="::1")
        await made.servers.sync({ONE: health_check(port, {"IPv6": 5})})
        assert await refused(("127.0.0.1", port))
        await check(ONE, port, status=200, count=5, host="::1")


async def test_a_family_that_cannot_be_opened_leaves_the_other_alone() -> None:
    port = free_port()
    async with scene() as made:
        made.hosts["IPv6"] = ["2001:db8::77"]
        await made.servers.sync({ONE: health_check(port, {"IPv4": 1, "IPv6": 1})})
        assert made.servers.reasons == {ONE: "address 2001:db8::77 is not on this node"}
        await check(ONE, port, status=200, count=1)


async def test_a_family_without_addresses_is_not_opened() -> None:
    port = free_port()
    async with scene() as made:
        made.hosts["IPv6"] = []
        await made.servers.sync({ONE: health_check(port, {"IPv4": 1, "IPv6": 1})})
        await made.servers.sync({ONE: health_check(port, {"IPv4": 2, "IPv6": 1})})
        assert made.servers.reasons == {}
        await check(ONE, port, status=200, count=2)


async def test_listens_on_the_given_addresses_only() -> None:
    port = free_port()
    async with scene() as made:
        made.hosts["IPv4"] = ["127.0.0.2", "127.0.0.3"]
        await made.servers.sync({ONE: four(port, 1)})
        await check(ONE, port, status=200, count=1, host="127.0.0.2")
        await check(ONE, port, status=200, count=1, host="127.0.0.3")
        assert await refused(("127.0.0.1", port))


async def test_new_addresses_are_followed() -> None:
    port = free_port()
    async with scene() as made:
        await made.servers.sync({ONE: four(port, 1)})
        made.hosts["IPv4"] = ["127.0.0.2"]
        await made.servers.sync({ONE: four(port, 1)})
        assert await refused(("127.0.0.1", port))
        await check(ONE, port, status=200, count=1, host="127.0.0.2")


async def test_a_taken_port_is_a_reason_and_is_tried_again() -> None:
    free = free_port()
    with taken_port("127.0.0.1") as taken:
        port = address_of(taken).port
        wanted = {ONE: four(port, 1), TWO: four(free, 2)}
        async with scene() as made:
            await made.servers.sync(wanted)
            assert made.servers.reasons == {
                ONE: f"TCP port {port} on 127.0.0.1 is already in use by another process"
            }
            await check(TWO, free, status=200, count=2)
            taken.close()
            await made.servers.sync(wanted)
            assert made.servers.reasons == {}
            await check(ONE, port, status=200, count=1)


async def test_reasons_of_both_families_are_told() -> None:
    async with scene() as made:
        made.hosts = {"IPv4": ["192.0.2.77"], "IPv6": ["2001:db8::77"]}
        await made.servers.sync({ONE: health_check(free_port(), {"IPv6": 1, "IPv4": 1})})
        assert made.servers.reasons == {
            ONE: "address 192.0.2.77 is not on this node; address 2001:db8::77 is not on this node"
        }
        await made.servers.sync({})
        assert made.servers.reasons == {}


async def test_one_taken_address_closes_the_others_of_the_service() -> None:
    with taken_port("127.0.0.2") as taken:
        port = address_of(taken).port
        async with scene() as made:
            made.hosts["IPv4"] = ["127.0.0.1", "127.0.0.2"]
            await made.servers.sync({ONE: four(port, 1)})
            assert ONE in made.servers.reasons
            assert await refused(("127.0.0.1", port))


async def test_of_two_services_with_one_port_the_second_waits() -> None:
    port = free_port()
    async with scene() as made:
        await made.servers.sync({ONE: four(port, 1), TWO: four(port, 2)})
        assert list(made.servers.reasons) == [TWO]
        await check(ONE, port, status=200, count=1)
        await made.servers.sync({TWO: four(port, 2)})
        await check(TWO, port, status=200, count=2)


async def test_a_request_that_races_with_the_removal_gets_503_or_nothing() -> None:
    port = free_port()
    async with scene() as made:
        await made.servers.sync({ONE: four(port, 1)})
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        writer.write(request)
        assert b" 200 " in await reader.readuntil(b"\n}")
        writer.write(request)
        await made.servers.sync({})
        answer = await reader.read()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 503 ")
        assert b'"localEndpoints": 1' not in answer
        writer.close()
        await writer.wait_closed()


async def test_closing_twice_is_fine() -> None:
    async with scene() as made:
        port = free_port()
        await made.servers.sync({ONE: four(port, 1)})
        await made.servers.__aexit__()
        assert await refused(("127.0.0.1", port))
    assert "0 open 0 failed" in repr(made.servers)
