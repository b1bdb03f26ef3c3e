"""The result of a comparison, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from bench.compare.bursts import LOADS
from bench.compare.measure import Cost, Row
from bench.compare.pairs import Verdict

_STYLES = {Verdict.WITHIN: "green", Verdict.DEARER: "red", Verdict.UNDECIDED: "yellow"}


def comparison(found: Mapping[Row, Cost], older: str, newer: str) -> Table:
    """A line for each row: what an operation costs the worker, and whether that is settled."""
    table = Table(title="CPU of the worker per operation")
    table.title_justify, table.title_style = "left", "bold"
    table.add_column("row", no_wrap=True)
    for column in ("unit", older, newer, "ratio (quartiles)", "99 % interval", "pairs", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row, cost in found.items():
        table.add_row(f"{row.load}, {row.engine}", *_cells(row, cost))
    return table


def _cells(row: Row, cost: Cost) -> list[str]:
    cpu = cost.cpu
    (first, third), (low, high) = cpu.quartiles, cpu.interval
    return [
        LOADS[row.load].unit,
        f"{cpu.typical_older:,.2f}",
        f"{cpu.typical_newer:,.2f}",
        f"{cpu.median:.3f} ({first:.3f}-{third:.3f})",
        f"{low:.3f}-{high:.3f}",
        str(len(cpu.older)),
        f"{cost.time.median:.3f}",
        f"[{_STYLES[cpu.verdict]}]{cpu.verdict}[/]",
    ]
