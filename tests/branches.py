"""Which branches no test takes, from the report that `coverage json` has written:

    python -m tests.branches REPORT PACKAGE...

For each package of uproxy: how many branches and lines are taken. For those that are named: each
branch that is not, as FILE:LINE -> LINE and the function it is in. "end" is that function's end.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

Measured = dict[str, Any]
"""What the report says of one file."""


def package_of(path: str) -> str:
    """The folder below uproxy/; "" for what is there itself."""
    parts = PurePath(path).parts
    return parts[1] if len(parts) > 2 else ""


def table(files: dict[str, Measured]) -> Iterator[str]:
    """A line for each package, and one for all."""
    sums: dict[str, Counter[str]] = {}
    for path, measured in files.items():
        for each in (package_of(path), "all"):
            sums.setdefault(each, Counter()).update(numbers(measured))
    yield f"{'package':12} {'branches':>16} {'lines':>18}"
    for name, found in sorted(sums.items(), key=lambda entry: (entry[0] == "all", entry[0])):
        branches = share(found["covered_branches"], found["num_branches"])
        lines = share(found["covered_lines"], found["num_statements"])
        yield f"{name or 'uproxy':12} {branches:>16} {lines:>18}"


def numbers(measured: Measured) -> dict[str, int]:
    return {name: each for name, each in measured["summary"].items() if isinstance(each, int)}


def share(taken: int, total: int) -> str:
    return f"{taken}/{total} {100 * taken / total if total else 100:5.1f}%"


def not_taken(files: dict[str, Measured], package: str) -> Iterator[str]:
    for path in sorted(path for path in files if package_of(path) == package):
        found = sorted(
            (start, end, name)
            for name, function in files[path]["functions"].items()
            for start, end in function["missing_branches"]
        )
        for start, end, name in found:
            there = str(end) if end > 0 else "end"
            yield f"{path}:{start} -> {there}  {name or 'the module'}"


def report(files: dict[str, Measured], packages: Sequence[str]) -> Iterator[str]:
    for package in packages:
        branches = list(not_taken(files, package))
        yield f"{package}: {len(branches)} branches that no test takes"
        yield from (f"  {each}" for each in branches)
        yield ""
    yield from table(files)


if __name__ == "__main__":
    measured = json.loads(Path(sys.argv[1]).read_text())["files"]
    sys.stdout.writelines(f"{line}\n" for line in report(measured, sys.argv[2:]))
