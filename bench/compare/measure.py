"""The run itself: both revisions stay running, and take turns at the same bursts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from bench.compare.bursts import LOADS, Burst
from bench.compare.pairs import Pairs
from bench.wire.peers import Setup, Subject
from bench.wire.places import Service
from bench.wire.processes import Unavailable, cpu_nanoseconds, pin, tree
from bench.wire.uproxy_peer import Program, uproxy

ENGINES: Final[Mapping[str, tuple[str, ...]]] = {
    "io_uring": (),
    "epoll": ("--io-uring", "never"),
}
"""The engines, with the options that choose them."""
_STEADY: Final = ("--busy-poll", "never", "--max-flows", "6000")
"""A worker that stays awake while the generator is busy would be charged for waiting. And four
programs, with a port for each UDP flow, share 28,232 ports."""
_WARM_UP = 3
"""Bursts of each row that are not counted: caches, the specializing interpreter, buffers."""
_TRAILING = 0.005
"""Seconds that a worker gets after each burst, for work that it puts off."""


class Row(NamedTuple):
    """One line of the table."""

    load: str
    engine: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What the bursts of one row took, pair by pair."""

    cpu: Pairs
    """Microseconds of the worker's CPU for each operation."""
    time: Pairs
    """Microseconds from the first operation's begin to the last one's end, for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The conditions of a comparison."""

    seconds: float
    """How long to measure, beside starting and warming up."""
    passes: int
    """How often all processes are started anew. Two processes of the same code differ by up to
    2 % for as long as they live: where their memory lies, and the seed of their hashes."""
    services: Sequence[Service]
    directory: Path
    descriptors: int
    own_network: bool
    processors: Sequence[int]
    """The processors that uproxy runs on."""


@dataclass(slots=True)
class Samples:
    """What was measured so far: older, newer."""

    cpu: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    time: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))


@dataclass(frozen=True, slots=True)
class Contestant:
    """A revision with one engine, and a load on it."""

    burst: Burst
    workers: Sequence[int]

    def measure(self) -> tuple[float, float]:
        """Microseconds for each operation: of the workers' CPU, and of the clock."""
        before, begin = self._cpu(), time.perf_counter()
        operations = self.burst()
        elapsed = time.perf_counter() - begin
        time.sleep(_TRAILING)
        if not operations:
            raise Unavailable("nothing was answered")
        return (self._cpu() - before) / operations / 1e3, elapsed / operations * 1e6

    def _cpu(self) -> int:
        return sum(map(cpu_nanoseconds, self.workers))


def compare(
    programs: Sequence[Program],
    rows: Sequence[Row],
    terms: Terms,
    say: Callable[[str], None],
) -> dict[Row, Cost]:
    """Measure all rows of the older and the newer one in turn until the time is over.

    Raises Unavailable.
    """
    found = {row: Samples() for row in rows}
    numbers = count()
    for number in range(terms.passes):
        say(f"pass {number + 1} of {terms.passes}: starting")
        with ExitStack() as stack:
            contestants = _start(programs, rows, terms, numbers, stack)
            say(f"pass {number + 1} of {terms.passes}: measuring")
            end = time.monotonic() + terms.seconds / terms.passes
            take_turns(contestants, found, lambda: time.monotonic() > end)  # noqa: B023
    return {row: Cost(Pairs(*each.cpu), Pairs(*each.time)) for row, each in found.items()}


def _start(
    programs: Sequence[Program],
    rows: Sequence[Row],
    terms: Terms,
    numbers: Iterator[int],
    stack: ExitStack,
) -> dict[Row, list[Contestant]]:
    engines = dict.fromkeys(row.engine for row in rows)
    started: dict[str, list[Subject]] = {}
    for engine in engines:
        start = [uproxy(0, *_STEADY, *ENGINES[engine], program=each) for each in programs]
        started[engine] = [
            stack.enter_context(each(_setup(terms, next(numbers)))) for each in start
        ]
    contestants = {
        row: [_contestant(row, each, terms, stack) for each in started[row.engine]] for row in rows
    }
    for each in (one for pair in contestants.values() for one in pair):
        for _ in range(_WARM_UP):
            each.burst()
    return contestants


def _contestant(row: Row, subject: Subject, terms: Terms, stack: ExitStack) -> Contestant:
    assert subject.process is not None
    for pid in tree(subject.process.process.pid):
        pin(pid, terms.processors)
    burst = stack.enter_context(LOADS[row.load].begin(subject.places))
    return Contestant(burst, subject.process.workers())


def _setup(terms: Terms, number: int) -> Setup:
    directory = terms.directory / f"peer-{number}"
    directory.mkdir()
    return Setup(
        services=terms.services,
        workers=1,
        directory=directory,
        descriptors=terms.descriptors,
        own_network=terms.own_network,
    )


def take_turns(
    contestants: Mapping[Row, Sequence[Contestant]],
    found: Mapping[Row, Samples],
    enough: Callable[[], bool],
) -> None:
    """At least one pair for each row; the one that goes first changes from pair to pair."""
    for number in count():
        for row, pair in contestants.items():
            for which in (1, 0) if number % 2 else (0, 1):
                cpu, elapsed = pair[which].measure()
                found[row].cpu[which].append(cpu)
                found[row].time[which].append(elapsed)
        if enough():
            return
