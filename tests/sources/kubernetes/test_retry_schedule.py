"""When a server that was away is asked again: often, by few, and by all once it answers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from statistics import median

import pytest

from uproxy.sources.kubernetes.retry_schedule import (
    RetryTimer,
    SharedRetrySchedule,
    Spacing,
)
from uproxy.sources.kubernetes.verdict import FailureCounts, Verdict

KINDS = ("services", "endpointslices", "node")
SPACING = Spacing()


class Server:
    """A server that is restarted: gone from `gone` to `there`, then forbids until `ready`."""

    def __init__(self, gone: float, there: float, ready: float) -> None:
        self.gone = gone
        self.there = there
        self.ready = ready

    def state(self, now: float) -> str:
        if now < self.gone or now >= self.ready:
            return "ready"
        return "away" if now < self.there else "refusing"


def requests(
    server: Server, chance: Callable[[], float], until: float = 600.0
) -> list[tuple[float, str]]:
    """When which resource asks, until all are answered again, or this time."""
    recovery, now = SharedRetrySchedule(chance, SPACING), server.gone
    asking, found = dict.fromkeys(KINDS, now), list[tuple[float, str]]()
    while asking:
        for each in asking:
            asking[each] = max(asking[each], recovery.due(each))
        kind, now = min(asking.items(), key=lambda entry: entry[1])
        if now > until:
            break
        found.append((now, kind))
        state = server.state(now)
        if state == "ready":
            recovery.succeeded(kind, now)
            del asking[kind]
            asking = {each: recovery.due(each) for each in asking}
        else:
            recovery.failed(kind, now, refused=state == "refusing")
    return found


def comeback(server: Server, chance: Callable[[], float]) -> float:
    """Seconds from when the server is ready until all resources have been answered."""
    return requests(server, chance)[-1][0] - server.ready


@pytest.mark.parametrize(
    ("away", "refusing"),
    [(0.0, 0.0), (1.0, 0.0), (5.0, 0.0), (5.0, 2.0), (5.0, 5.0), (60.0, 3.0), (3600.0, 4.0)],
)
def test_all_are_back_within_three_seconds(away: float, refusing: float) -> None:
    chance = random.Random(1)
    server = Server(100.0, 100.0 + away, 100.0 + away + refusing)
    found = [comeback(server, chance.random) for _ in range(500)]
    assert median(found) < 2.0
    assert sum(each < 3.0 for each in found) > 0.8 * len(found)
    assert max(found) < 6.0


def test_a_server_that_is_away_is_asked_by_one_resource_at_a_time() -> None:
    found = requests(Server(0.0, 600.0, 600.0), random.Random(2).random)
    late = [(at, kind) for at, kind in found if 20 < at < 600]
    gaps = [after - before for (before, _), (after, _) in pairwise(late)]
    assert 1.0 <= min(gaps) <= max(gaps) <= 3.0
    assert all(
        len({kind for _, kind in three}) == 3
        for three in zip(late, late[1:], late[2:], strict=False)
    )


def test_a_server_that_refuses_is_asked_less_and_less() -> None:
    found = [at for at, _ in requests(Server(0.0, 0.0, 10_000.0), random.Random(3).random, 3600)]
    count = Counter(int(at // 60) for at in found)
    assert count[0] < 30
    assert all(count[minute] <= 6 for minute in range(10, 60))
    gaps = [after - before for before, after in pairwise(found)]
    assert max(gaps) <= 30.0


def test_a_thousand_nodes_do_not_come_in_the_same_second() -> None:
    server = Server(0.0, 60.0, 60.0)
    chance = random.Random(4)
    came = sorted(
        at for _ in range(1000) for at, _ in requests(server, chance.random) if at >= 60.0
    )
    most = max(_within(came, start, 1.0) for start in came)
    assert len(came) == 3000
    assert most < 0.55 * len(came)
    assert max(_within(came, start, 0.1) for start in came) < 0.1 * len(came)


def _within(times: list[float], start: float, seconds: float) -> int:
    return sum(start <= at < start + seconds for at in times)


def scripted(values: Iterable[float] = ()) -> Callable[[], float]:
    left = iter(values)
    return lambda: next(left, 0.0)


def test_success_anywhere_ends_the_wait_everywhere() -> None:
    recovery = SharedRetrySchedule(scripted(), SPACING)
    for now in range(0, 100, 10):
        recovery.failed("services", now, refused=True)
    recovery.failed("node", 91.0, refused=True)
    assert min(recovery.due("services"), recovery.due("node")) >= 105.0
    recovery.succeeded("endpointslices", 100.0)
    assert recovery.due("services") <= 100.5
    assert recovery.due("node") <= 100.5
    recovery.failed("services", 101.0, refused=True)
    assert recovery.due("services") == 102.0, "from the beginning"
    assert recovery.outages == 1


def test_success_without_an_outage_changes_nothing() -> None:
    recovery = SharedRetrySchedule(scripted(), SPACING)
    for now in range(5):
        recovery.succeeded("services", now)
    assert recovery.outages == 0


def test_a_wait_that_the_server_asks_for_is_respected_after_an_outage() -> None:
    recovery = SharedRetrySchedule(scripted(), SPACING)
    recovery.failed("services", 0.0, refused=True, wait=20.0)
    recovery.failed("node", 0.0, refused=True)
    assert recovery.due("node") == 2.0, "the wait of one is not the wait of another"
    recovery.succeeded("node", 2.0)
    assert recovery.due("services") == 20.0


def test_time_without_a_server_does_not_count_against_one_that_refuses() -> None:
    recovery = SharedRetrySchedule(scripted(), SPACING)
    recovery.failed("services", 0.0, refused=False)
    recovery.failed("services", 1000.0, refused=False)
    assert recovery.due("services") == 1003.0
    recovery.failed("services", 1003.0, refused=True)
    assert recovery.due("services") == 1004.0
    recovery.failed("services", 1100.0, refused=False)
    recovery.failed("services", 1103.0, refused=True)
    assert recovery.due("services") == 1104.0, "it was away again meanwhile"


def test_a_resource_that_alone_cannot_be_listed_is_not_asked_for_every_second() -> None:
    recovery = SharedRetrySchedule(scripted(), SPACING)
    recovery.failed("services", 0.0, refused=False, alone=True)
    recovery.failed("services", 100.0, refused=False, alone=True)
    assert recovery.due("services") == 130.0


GONE = Verdict(relist=True, expected=True)
CUT = Verdict()
NO_WATCH_LIST = Verdict(relist=True, expected=True, no_watch_list=True)


def counts(failures: FailureCounts, *verdicts: Verdict) -> list[int]:
    return [failures.count(each) for each in verdicts]


def test_failures_in_a_row_are_counted_by_what_they_are() -> None:
    failures = FailureCounts()
    assert counts(failures, CUT, CUT, GONE, CUT, GONE) == [1, 2, 1, 3, 2]
    assert counts(failures, NO_WATCH_LIST, NO_WATCH_LIST) == [0, 0]
    failures.forgive(0, lasted=False)
    assert counts(failures, CUT, GONE) == [4, 3]


def test_failures_are_forgotten_after_a_watch_that_lasted_and_after_an_outage() -> None:
    failures = FailureCounts()
    counts(failures, CUT, CUT, GONE)
    failures.forgive(0, lasted=True)
    assert counts(failures, CUT, GONE) == [1, 1]
    failures.forgive(1, lasted=False)
    assert counts(failures, CUT, GONE) == [1, 1], "another server, perhaps"
    failures.forgive(1, lasted=False)
    assert counts(failures, CUT, GONE) == [2, 2]


async def test_the_timer_waits_until_one_resource_is_answered() -> None:
    turns = RetryTimer(scripted(), Spacing(first=3600.0, unreachable=3600.0, together=0.0))
    await turns.wait("services")
    woken: list[str] = []

    async def wait(kind: str) -> None:
        turns.failed(kind, refused=False)
        await turns.wait(kind)
        woken.append(kind)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for kind in KINDS[:2]:
            tasks.create_task(wait(kind))
        await asyncio.sleep(0)
        turns.succeeded("node")
    assert sorted(woken) == sorted(KINDS[:2])
    assert turns.outages == 1


async def test_the_timer_ends_by_itself() -> None:
    turns = RetryTimer(scripted(), Spacing(first=0.01, unreachable=0.01))
    turns.failed("services", refused=False)
    begin = asyncio.get_running_loop().time()
    async with asyncio.timeout(20):
        await turns.wait("services")
    assert asyncio.get_running_loop().time() > begin, "it has not waited"
    assert turns.outages == 0, "it was not woken by an answer"
