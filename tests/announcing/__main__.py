"""Simulated clusters that elect announcers, many or one: see `--help`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from multiprocessing import get_context
from time import monotonic

from tests.announcing.mutations import ALL, MUTATIONS, apply

CHUNK = 10
"""Seeds that a process runs in one go."""


def main() -> int:
    options = _options()
    if options.mutations:
        return _mutations(options.seeds)
    if options.mutation:
        apply(options.mutation)
    if options.seed is not None:
        return _replay(options.seed)
    return _many(options.first, options.seeds, options.jobs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make announcing", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many (SEEDS=)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (FIRST=)")
    parser.add_argument("--seed", type=int, help="run this one and show its trace (SEED=)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    names = sorted(MUTATIONS)
    parser.add_argument("--mutation", choices=names, metavar="NAME", help="of a defect to put in")
    parser.add_argument("--mutations", action="store_true", help="put all in, one by one")
    return parser.parse_args()


def _replay(seed: int) -> int:
    from tests.announcing.chaos import attempt

    outcome = attempt(seed)
    print(*outcome.trace, sep="\n")
    print(f"seed {seed}: {'; '.join(outcome.violations) or 'all is well'}")
    return int(bool(outcome.violations))


def _many(first: int, count: int, jobs: int) -> int:
    begin, done = monotonic(), 0
    chunks = [
        range(at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)
    ]
    with get_context("fork").Pool(jobs) as pool:
        for number, (runs, failure) in enumerate(pool.imap(_chunk, chunks), 1):
            done += runs
            if failure:
                pool.terminate()
                print(f"{failure}\nafter {done} seeds; its trace: make announcing SEED=N")
                return 1
            if number % 10 == 0 or done == count:
                print(
                    f"{done} seeds: all is well; {done / (monotonic() - begin):.1f}/s", flush=True
                )
    return 0


def _chunk(seeds: range) -> tuple[int, str]:
    """How many seeds there were, and which promise the last one has broken."""
    from tests.announcing.promises import ALL as PROMISES

    for number, seed in enumerate(seeds, 1):
        for name, promise in PROMISES.items():
            if broken := promise(seed):
                return number, f"seed {seed}, {name}: {broken}"
    return len(seeds), ""


def _mutations(seeds: int) -> int:
    """Put in every defect, and print a table of what has noticed it."""
    missed = 0
    print("| defect | what it does | noticed as |\n|---|---|---|")
    for each in ALL:
        options = ["--mutation", each.name, "--seeds", str(seeds)]
        command = [sys.executable, "-m", "tests.announcing", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = (done.stdout or done.stderr).strip().splitlines()
        how = lines[-2 if done.stdout else -1] if done.returncode and lines else "not at all"
        missed += not done.returncode
        print(f"| {each.name} | {each.says} | {how} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
