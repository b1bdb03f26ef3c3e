"""Results next to their targets."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from bench.scale.measure import Result


class Row(NamedTuple):
    """One line of the table."""

    what: str
    value: float
    unit: str
    target: float | None
    """At most; None: there is none."""

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.value <= self.target


_START = {2000: 3.0, 10000: 15.0}
_CONTROL = {2000: 120.0, 10000: 250.0}
_WORKER = {0: 25.0, 2000: 50.0}
_MOVE, _STALL, _CPU = 100.0, 50.0, 15.0


def rows(results: Sequence[Result]) -> Iterator[Row]:
    """Every figure of every run."""
    for result in results:
        many = result.setup.services
        name = f"{many:,} Services"
        yield Row(f"start to /readyz green, {name}", result.ready, "s", _START.get(many))
        yield Row(
            f"CPU time of the control process until then, {name}", result.start_cpu, "s", None
        )
        yield Row(f"memory of the control process, {name}", result.control, "MiB", _at(many))
        worker = max(result.workers, default=0.0)
        yield Row(f"memory of each worker, {name}", worker, "MiB", _WORKER.get(many))
        target = _STALL if many else None
        yield Row(f"longest wait for /livez at start, {name}", 1e3 * result.stall, "ms", target)
        if result.moves:
            rate = f"{result.setup.changes:g} changes/s, {name}"
            yield Row(f"change to new backend, p50, {rate}", 1e3 * result.move(0.5), "ms", None)
            yield Row(f"change to new backend, p99, {rate}", 1e3 * result.move(0.99), "ms", _MOVE)
            cpu = _CPU if many == 2000 else None
            yield Row(f"CPU of the control process, {rate}", 100 * result.cpu, "%", cpu)
            after = result.control_after_changes
            yield Row(f"memory of the control process after {rate}", after, "MiB", _at(many))


def _at(services: int) -> float | None:
    return _CONTROL.get(services)


def table(found: Sequence[Row]) -> str:
    width = max(len(row.what) for row in found)
    lines = [f"{'':{width}}  {'measured':>12}  {'target':>9}"]
    for row in found:
        target = "" if row.target is None else f"{row.target:g} {row.unit}"
        verdict = {None: "", True: "met", False: "MISSED"}[row.met]
        value = f"{row.value:.1f} {row.unit}"
        lines.append(f"{row.what:{width}}  {value:>12}  {target:>9}  {verdict}".rstrip())
    return "\n".join(lines)


def document(results: Sequence[Result], notes: Sequence[str]) -> str:
    """The same as JSON, with what is needed to compare it later."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    content: dict[str, Any] = {
        "revision": revision.stdout.strip(),
        "host": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "notes": list(notes),
        "rows": [{**row._asdict(), "met": row.met} for row in rows(results)],
        "runs": [asdict(result) for result in results],
    }
    return json.dumps(content, indent=2)
