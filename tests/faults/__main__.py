"""A control process in worlds where everything may fail, many or one: see `--help`."""

from __future__ import annotations

import argparse
import os
import sys
from multiprocessing import get_context
from time import monotonic

from tests.faults.mutations import MUTATIONS, apply

CHUNK = 20
"""Seeds that a process runs in one go."""
LINES = 60
"""Of a trace that are shown, unless one seed is asked for."""


def main() -> int:
    options = _options()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets are walked in the order of hashes: a seed replays exactly only with the same ones.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.faults", *sys.argv[1:]])
    if options.mutation:
        apply(options.mutation)
    if options.seed is not None:
        return _replay(options.seed)
    return _many(options.first, options.seeds, options.jobs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (SEEDS=)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (FIRST=)")
    parser.add_argument("--seed", type=int, help="run this one and show its trace (SEED=)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    names = sorted(MUTATIONS)
    parser.add_argument("--mutation", choices=names, metavar="NAME", help="of a defect to put in")
    return parser.parse_args()


def _replay(seed: int) -> int:
    from tests.faults.world import attempt

    trace, failure = attempt(seed)
    print(*trace, sep="\n")
    print(f"seed {seed}: {failure or 'all is well'}")
    return int(bool(failure))


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
                print(f"{failure}\nafter {done} runs; the whole trace: make faults SEED=N")
                return 1
            if number % 10 == 0 or done == count:
                rate = done / (monotonic() - begin)
                print(f"{done} runs: all is well; {rate:.0f} runs/s", flush=True)
    return 0


def _chunk(seeds: range) -> tuple[int, str]:
    """How many runs there were, and what the last one has failed with."""
    from tests.faults.world import attempt

    for number, seed in enumerate(seeds, 1):
        trace, failure = attempt(seed)
        if failure:
            return number, "\n".join([*trace[-LINES:], f"seed {seed}: {failure}"])
    return len(seeds), ""


if __name__ == "__main__":
    sys.exit(main())
