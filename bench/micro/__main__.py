"""`python -m bench.micro [WORD ...]`: time the cases whose names contain one of the words.
`python -m bench.micro calls`: count the calls that connections and requests take.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from statistics import median
from timeit import Timer

from rich.console import Console
from rich.table import Table

from bench.micro import calls
from bench.micro.cases import CASES, Case

_REPEATS = 7
_LONG_ENOUGH = 0.1
"""Seconds for one repeat, against the clock's and the machine's jitter."""


def selected(words: Sequence[str]) -> list[Case]:
    """Cases whose names hold one of the words; without words, all."""
    return [each for each in CASES if not words or any(word in each.name for word in words)]


def timed(step: Callable[[], object]) -> list[float]:
    """Microseconds for one step, in each repeat."""
    timer = Timer(step)
    number = 1
    while timer.timeit(number) < _LONG_ENOUGH:
        number *= 2
    return [seconds / number * 1e6 for seconds in timer.repeat(_REPEATS, number)]


def count_calls() -> None:
    """Print what is called, and a table of the sums."""
    console = Console()
    found = {}
    for operation in calls.OPERATIONS:
        for engine in calls.ENGINES:
            counted = found[operation, engine] = calls.count(engine, operation)
            console.print(calls.names_table(operation, engine, counted))
    console.print(calls.totals_table(found))


def time_steps(words: Sequence[str]) -> None:
    """Print a table. The best of the repeats is the one that was disturbed least."""
    table = Table("step", "best, us", "median, us")
    for case in selected(words):
        step = case.prepare()
        gc.collect()
        times = timed(step)
        table.add_row(case.name, f"{min(times):,.2f}", f"{median(times):,.2f}")
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:] == ["calls"]:
        count_calls()
    else:
        time_steps(sys.argv[1:])
