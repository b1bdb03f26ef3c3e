"""`python -m bench.scale`: the control process with the fake API server, on this machine."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from bench.scale.measure import Result, fitting, measure
from bench.scale.report import document, rows, table


def main() -> None:
    arguments = _parser().parse_args()
    results, notes = list[Result](), list[str]()
    for services in arguments.services:
        setup, note = fitting(services, arguments.ports, arguments.workers)
        if services == arguments.change_at:
            setup = replace(setup, changes=arguments.rate)
        setup = replace(setup, seconds=arguments.seconds, moves=arguments.moves)
        print(f"measuring {services:,} Services ...", file=sys.stderr)
        results.append(measure(setup))
        notes += [note] if note else []
    print(table(list(rows(results))))
    for note in notes:
        print(note)
    if arguments.json is not None:
        arguments.json.write_text(document(results, notes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument(
        "--services",
        type=_numbers,
        default=[0, 2000, 10000],
        help="numbers of Services, default 0,2000,10000",
    )
    parser.add_argument("--ports", type=int, default=2, help="ports of each Service, default 2")
    parser.add_argument("--workers", type=int, default=2, help="number of workers, default 2")
    parser.add_argument(
        "--change-at",
        type=int,
        default=2000,
        help="number of Services with which to measure changes, default 2000",
    )
    parser.add_argument("--rate", type=float, default=100.0, help="changes a second, default 100")
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        help="length of the measurement of CPU use, default 20",
    )
    parser.add_argument(
        "--moves", type=int, default=300, help="number of changes that are timed, default 300"
    )
    parser.add_argument("--json", type=Path, help="write the results also to this file")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


if __name__ == "__main__":
    main()
