"""Simulate many seeds on all processors, or replay one: see `--help`."""

from __future__ import annotations

import argparse
import os
import sys
from multiprocessing import get_context
from time import monotonic

from tests.simulation import evidence
from tests.simulation.mutate import MUTATIONS, apply

CHUNK = 25
"""Seeds that a process simulates in one go."""
LINES = 200
"""Of a trace that are shown, unless all are asked for."""


def main() -> int:
    options = _options()
    if options.mutations:
        return evidence.show(options.seeds, options.jobs)
    if options.mutation:
        apply(options.mutation)
    if options.seed is not None:
        return _replay(options.seed, options.mode)
    return _many(options.first, options.seeds, options.mode, options.jobs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many (SEEDS=)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (FIRST=)")
    parser.add_argument("--seed", type=str, help="replay this one and show its trace (SEED=)")
    parser.add_argument("--mode", help="ring, epoll, splice or udp; all by default (MODE=)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    names = sorted(MUTATIONS)
    parser.add_argument("--mutation", choices=names, metavar="NAME", help="of a defect to put back")
    parser.add_argument("--mutations", action="store_true", help="put all back, one by one")
    return parser.parse_args()


def _modes(mode: str | None) -> tuple[str, ...]:
    from tests.simulation.scenario import MODES

    return MODES if mode is None else (mode,)


def _replay(seed: str, mode: str | None) -> int:
    from tests.simulation.simulation import simulate

    failed = False
    for each in _modes(mode):
        outcome = simulate(seed, each, tracing=True)  # type: ignore[arg-type]
        print(*outcome.trace, sep="\n")
        print(outcome.scenario.describe())
        print(f"seed {seed}, {each}:", "; ".join(outcome.violations) or "all is well")
        failed = failed or bool(outcome.violations)
    return int(failed)


def _many(first: int, count: int, mode: str | None, jobs: int) -> int:
    modes = _modes(mode)
    begin = monotonic()
    chunks = [
        (at, min(at + CHUNK, first + count), modes) for at in range(first, first + count, CHUNK)
    ]
    done = faults = events = 0
    with get_context("fork").Pool(jobs) as pool:
        for number, (seeds, more_events, more_faults, failure) in enumerate(
            pool.imap_unordered(_chunk, chunks)
        ):
            done, events, faults = done + seeds, events + more_events, faults + more_faults
            if failure is not None:
                pool.terminate()
                return _show(*failure, done)
            if number % 40 == 39 or done == count:
                rate = done * len(modes) / (monotonic() - begin)
                print(
                    f"{done} seeds by {', '.join(modes)}: all is well; {events} events,"
                    f" {faults} faults, {rate:.0f} simulations/s",
                    flush=True,
                )
    return 0


def _chunk(chunk: tuple[int, int, tuple[str, ...]]) -> tuple[int, int, int, tuple[str, str] | None]:
    from tests.simulation.simulation import simulate

    begin, end, modes = chunk
    events = faults = 0
    for seed in range(begin, end):
        for mode in modes:
            outcome = simulate(str(seed), mode)  # type: ignore[arg-type]
            events, faults = events + outcome.events, faults + outcome.faults
            if outcome.violations:
                return seed + 1 - begin, events, faults, (str(seed), mode)
    return end - begin, events, faults, None


def _show(seed: str, mode: str, done: int) -> int:
    from tests.simulation.simulation import simulate

    outcome = simulate(seed, mode, tracing=True)  # type: ignore[arg-type]
    shown = outcome.trace[-LINES:]
    print(f"... {len(outcome.trace) - len(shown)} lines", *shown, sep="\n")
    print(outcome.scenario.describe())
    print(f"\nseed {seed}, {mode}, after {done} seeds:", "; ".join(outcome.violations))
    print(f"The whole trace: make simulate SEED={seed} MODE={mode}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
