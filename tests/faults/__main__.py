"""python -m tests.faults SEEDS [--from SEED] [--trace]: runs of the control process in bad weather.

A run that fails prints its trace, and how to have it again.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import zlib
from collections.abc import Iterator

from tests.faults.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("seeds", type=int, help="how many")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="SEED")
    parser.add_argument("--trace", action="store_true", help="print every run's trace")
    parser.add_argument("--go-on", action="store_true", help="after a failure, too")
    parser.add_argument("--lines", type=int, default=60, help="of the trace of a failed run")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets are walked in the order of hashes: a seed replays exactly only with the same ones.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.faults", *sys.argv[1:]])
    digest, bad = 0, 0
    for seed in range(options.first, options.first + options.seeds):
        world = World(seed)
        try:
            world.run()
        except BaseException as error:
            _report(world, error, options.lines)
            bad += 1
            if not options.go_on:
                return 1
        text = "\n".join(world.trace)
        digest = zlib.crc32(text.encode(), digest)
        if options.trace:
            print(text)
    print(
        f"{options.seeds} runs, {bad} of them failed; their traces have the checksum {digest:08x}"
    )
    return int(bad > 0)


def _report(world: World, error: BaseException, lines: int) -> None:
    print("\n".join(world.trace[len(world.trace) - lines :]))
    for each in _leaves(error):
        print("".join(traceback.format_exception(each, limit=-4)))
    print(f"seed {world.seed}; again: python -m tests.faults 1 --from {world.seed} --lines 9999")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Of a group, what it is made of."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


if __name__ == "__main__":
    sys.exit(main())
