"""Hours with an API server that is restarted, falls silent or forbids requests. The times are the
real ones, of a clock that moves on only when nothing else can happen."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from statistics import median
from typing import Any, Self

import msgspec
import pytest

from tests.faults.clock import Clock, VirtualLoop
from tests.sources.kubernetes.cluster import Collector
from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import ServerAddress
from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.sources.kubernetes.source import KubernetesSource

BOOKMARKS = 60.0
"""Seconds between two, as an API server sends them."""
FOREVER = 10**9


class Stream:
    """An answer: what it begins with, then nothing, or a bookmark now and then."""

    def __init__(self, server: Server, status: int, body: bytes, *, ends: bool) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {}
        self.cut = asyncio.Event()
        self._server = server
        self._body = body
        self._ends = ends

    async def read(self, most: int = 0) -> bytes:
        return self._body

    async def chunk(self) -> bytes:
        body, self._body = self._body, b""
        if body or self._ends:
            return body
        try:
            async with asyncio.timeout(BOOKMARKS if self._server.bookmarks else FOREVER):
                await self.cut.wait()
        except TimeoutError:
            return self._server.bookmark()
        raise ApiUnreachable("connection reset by peer")

    def keep_alive(self) -> None:
        pass


class Server:
    """An `ApiServer` without objects."""

    def __init__(self) -> None:
        self.access = Access(origin="test", server="http://192.0.2.1")
        self.asked: list[tuple[float, str]] = []
        """When, and for what."""
        self.bookmarks = True
        self.away = False
        self.gone_as_status = True
        """Whether 410 is the status of an answer, else an event in one."""
        self.listed = set[str]()
        """Paths of which all was sent since the latest restart."""
        self.forbids: tuple[str, ...] = ()
        """Paths that are forbidden."""
        self._version = 1
        self._oldest = 1
        self._streams: set[Stream] = set()

    @property
    def addresses(self) -> Sequence[ServerAddress]:
        return (ServerAddress(self.access.server, self.access.origin),)

    def learn(self, addresses: Sequence[str]) -> bool:
        return False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    @asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[Stream]:
        self.asked.append((asyncio.get_running_loop().time(), request.path))
        await asyncio.sleep(0.002)
        if self.away:
            raise ApiUnreachable("connection refused")
        stream = self._answer(request.path, request.query)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def _answer(self, path: str, query: Mapping[str, Any]) -> Stream:
        if any(each in path for each in self.forbids):
            return Stream(self, 403, b'{"code":403,"message":"not yet"}', ends=True)
        if "resourceVersion" in query and int(query["resourceVersion"]) < self._oldest:
            if self.gone_as_status:
                return Stream(self, 410, b'{"code":410}', ends=True)
            return Stream(self, 200, b'{"type":"ERROR","object":{"code":410}}\n', ends=True)
        initial = "sendInitialEvents" in query
        if initial:
            self.listed.add(path)
        return Stream(self, 200, self.bookmark(initial=initial) if initial else b"", ends=False)

    def bookmark(self, *, initial: bool = False) -> bytes:
        metadata: dict[str, Any] = {"resourceVersion": str(self._version)}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        return msgspec.json.encode({"type": "BOOKMARK", "object": {"metadata": metadata}}) + b"\n"

    def cut(self) -> None:
        """End everything that is open."""
        for each in self._streams:
            each.cut.set()

    async def restart(self, away: float, forbidding: float) -> None:
        """Be away, then forbid everything for a while, then have no history."""
        self.away = True
        self.listed.clear()
        self.cut()
        await asyncio.sleep(away)
        self.away, self.forbids = False, ("/",)
        self._version += 10
        self._oldest = self._version
        await asyncio.sleep(forbidding)
        self.forbids = ()


def simulated(
    act: Callable[[Server, KubernetesSource], Awaitable[None]], *, seed: int = 0
) -> list[tuple[float, str]]:
    """Follow a server while something happens to it; what it was asked, and when."""
    clock, server = Clock(), Server()

    async def main() -> None:
        chance = random.Random(seed)
        source = KubernetesSource(server, node_name="here", random=chance.random)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(source.run(Collector()))
            await asyncio.sleep(60)
            assert source.reachable
            server.asked.clear()
            await act(server, source)
            running.cancel()

    def new_loop() -> VirtualLoop:
        return VirtualLoop(clock, random.Random(seed), lambda _: 0)

    with clock.instead_of_time(), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    return server.asked


async def until_followed(server: Server, source: KubernetesSource) -> float:
    """Wait until all kinds were listed anew and are followed; how many seconds that takes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(300):
        while not source.reachable or len(server.listed) < 3:  # noqa: ASYNC110 (this time costs nothing)
            await asyncio.sleep(0.01)
    return loop.time() - began


@pytest.mark.parametrize("gone_as_status", [True, False], ids=["status", "event"])
@pytest.mark.parametrize(
    ("away", "forbidding"), [(1.0, 0.0), (5.0, 0.0), (5.0, 3.0), (20.0, 5.0), (1800.0, 3.0)]
)
def test_all_kinds_are_followed_again_within_three_seconds_of_five_restarts(
    away: float, forbidding: float, gone_as_status: bool
) -> None:
    found: list[float] = []

    async def act(server: Server, source: KubernetesSource) -> None:
        server.gone_as_status = gone_as_status
        for _ in range(5):
            await server.restart(away, forbidding)
            found.append(await until_followed(server, source))
            await asyncio.sleep(30)

    for seed in range(10):
        simulated(act, seed=seed)
    assert median(found) < 2.0, "it was 24 s"
    assert all(median(found[start : start + 5]) < 3.0 for start in range(0, 50, 5))


def test_restarts_one_after_the_other_do_not_lengthen_the_pauses() -> None:
    found: list[float] = []

    async def act(server: Server, source: KubernetesSource) -> None:
        for _ in range(20):
            await server.restart(2.0, 1.0)
            found.append(await until_followed(server, source))
            await asyncio.sleep(0.5)

    simulated(act)
    # Of many, since which task of several runs first differs from one process to another.
    assert median(found[-15:]) < 3.0


def test_watches_that_bookmarks_keep_up_are_left_alone() -> None:
    async def act(server: Server, source: KubernetesSource) -> None:
        await asyncio.sleep(290)

    assert simulated(act) == []


def test_watches_that_are_silent_for_ninety_seconds_are_replaced_and_nothing_is_wrong() -> None:
    async def act(server: Server, source: KubernetesSource) -> None:
        server.bookmarks = False
        await asyncio.sleep(150)
        assert source.reachable
        assert source.last_error == ""

    asked = simulated(act)
    assert sorted(Counter(path for _, path in asked).values()) == [1, 1, 1]


def test_a_server_that_disappears_without_a_fin_is_noticed() -> None:
    async def act(server: Server, source: KubernetesSource) -> None:
        server.bookmarks = False
        server.away = True
        await asyncio.sleep(160)
        assert not source.reachable

    simulated(act)


def test_what_is_forbidden_for_good_is_asked_for_less_and_less() -> None:
    async def act(server: Server, source: KubernetesSource) -> None:
        server.forbids = ("/services",)
        server.cut()
        await asyncio.sleep(3600)
        assert set(source.reachability.troubles) == {"services"}

    count = Counter(path for _, path in simulated(act))
    # Each renewal of another watch is a sign that it may be worth trying again soon.
    assert count["/api/v1/services"] < 600
    assert count["/api/v1/nodes"] < 30


def test_a_server_that_is_away_for_an_hour_is_asked_every_two_seconds() -> None:
    async def act(server: Server, source: KubernetesSource) -> None:
        server.away = True
        server.cut()
        await asyncio.sleep(3600)

    assert 1200 < len(simulated(act)) < 3600
