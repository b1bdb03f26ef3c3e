"""Random changes and faults, after which the source has exactly the objects of the server."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from tests.fake_api.kinds import SERVICES
from tests.fake_api.server import FakeApi
from tests.fake_api.watching import Watching
from tests.sources.kubernetes.cluster import (
    FAST,
    Collector,
    endpointslice,
    followed,
    in_step,
    node,
    service,
)
from tests.sources.kubernetes.test_source import (
    cut_by_reset,
    cut_cleanly,
    gone,
    internal_error,
    send_binary,
    send_garbage,
    send_nonsense,
    too_many,
)
from uproxy.core.cluster.objects import ObjectName

_ROUNDS = 500
_ORDERS = (
    Watching.close,
    Watching.reset,
    Watching.replay,
    Watching.stall,
    cut_by_reset,
    cut_cleanly,
    gone,
    internal_error,
    send_binary,
    send_garbage,
    send_nonsense,
    too_many,
)
_RESOURCES = ("services", "endpointslices", "nodes")


def change(server: FakeApi, rng: random.Random) -> None:
    """One change of the cluster; some of the objects cannot be used."""
    name = f"s{rng.randrange(12)}"
    match rng.randrange(5):
        case 0:
            server.apply(service(name, ports=[{"port": rng.randrange(1, 1000)}]))
        case 1:
            server.apply(endpointslice(name, *(f"192.0.2.{rng.randrange(256)}",) * 2))
        case 2:
            labels = {"service.kubernetes.io/headless": ""} if rng.randrange(2) else {}
            server.apply(endpointslice(name, "192.0.2.1", **labels))
        case 3:
            server.apply(node("here", taints=[{"key": f"t{rng.randrange(9)}"}]))
        case _:
            if ("default", name) in server.store.items(SERVICES):
                server.delete(SERVICES, name)


async def wreak(server: FakeApi, rng: random.Random) -> None:
    """One fault."""
    where = rng.choice(_RESOURCES)
    match rng.randrange(9):
        case 0:
            server.answer(rng.choice((401, 403, 429, 500, 503, 504, 410)), on=where, times=2)
        case 1:
            server.expire()
            server.order(Watching.close)
        case 2:
            server.watch_list = rng.choice(("served", "error-event", "bad-request"))
        case 3:
            await server.stop()
            change(server, rng)
            await server.__aenter__()
        case _:
            server.order(rng.choice(_ORDERS), on=where)


def converged(sink: Collector, server: FakeApi) -> bool:
    return not any(sink.errors.values()) and in_step(sink, server)


async def test_the_known_objects_always_become_those_of_the_server() -> None:
    rng = random.Random(20)
    steady = ObjectName("default", "steady")
    timing = replace(FAST, watch_lifetime=0.5, overtime=0.3)
    async with FakeApi(bookmark_period=0.05, history=60) as server:
        server.apply(service("steady"), endpointslice("steady", "192.0.2.1"), node("here"))
        async with followed(server, timing) as (sink, source):
            kept = sink.objects["services"][steady]
            for number in range(_ROUNDS):
                for _ in range(rng.randrange(4)):
                    change(server, rng)
                if rng.randrange(3) == 0:
                    await wreak(server, rng)
                await asyncio.sleep(rng.random() * 0.02)
                if number % 50 == 49:
                    server.heal()
                    await sink.until(lambda: source.reachable and converged(sink, server))
            assert sink.objects["services"][steady] is kept
            assert sink.calls.count("apply services default/steady") == 1
            assert sink.calls.count("apply endpointslices default/steady-1") == 1
