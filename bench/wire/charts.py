"""Charts of a run, as SVG: what README.md shows."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.wire import figures
from bench.wire.processes import Unavailable
from bench.wire.results import Outcome, Run
from bench.wire.statistics import Spread, ratios, spread, values

_PROXIES: Final = {"tcp": "haproxy", "udp": "nginx"}
"""The baseline of each chart. Comparisons of uproxy with itself are not drawn."""
_CURVE: Final = re.compile(r"keep-alive-\d+-t1")
"""Scenarios of the chart of latencies: those in which any number of connections was measured."""
_COLOURS: Final = {
    "none": "#9aa5b1",
    "nftables": "#c3a6d8",
    "haproxy": "#4c78a8",
    "haproxy-bulk": "#9ecae9",
    "nginx": "#54a24b",
    "go": "#72b7b2",
    "uproxy": "#f58518",
    "uproxy-epoll": "#ffbf79",
}


def draw(run: Run, directory: Path) -> list[Path]:
    """Write the charts that this run has the figures for. Raises Unavailable without matplotlib."""
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        raise Unavailable("matplotlib is not installed (pip install -e '.[bench]')") from None
    matplotlib.use("svg")
    # Equal runs give equal files, and text stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "uproxy", "svg.fonttype": "none"})
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    directory.mkdir(parents=True, exist_ok=True)
    return list(_charts(run, pyplot, directory))


def _charts(run: Run, pyplot: Any, directory: Path) -> Iterator[Path]:
    speed = [each for each in run.outcomes if _speed(each) and each.baseline in _PROXIES.values()]
    for name, baseline in _PROXIES.items():
        found = [each for each in speed if each.baseline == baseline]
        if found:
            title = f"{name.upper()} throughput / {baseline} (more is better)"
            yield _save(_ratios(pyplot, run, found, title), directory / f"{name}.svg")
    cpu = [each for each in speed if spread(ratios(each, "uproxy", figures.CPU))]
    if cpu:
        title = "CPU time of the proxy for the same work / baseline (less is better)"
        yield _save(_ratios(pyplot, run, cpu, title, figures.CPU), directory / "cpu.svg")
    curve = [each for each in run.outcomes if _CURVE.fullmatch(each.scenario)]
    if len(curve) > 1:
        yield _save(_latencies(pyplot, run, curve), directory / "latency.svg")


def _speed(outcome: Outcome) -> str:
    """Name of the figure that gives the speed; "" if the scenario does not measure speed."""
    names = [each.name for each in outcome.figures]
    return next((each for each in names if each in (figures.RATE, figures.THROUGHPUT)), "")


def _ratios(
    pyplot: Any, run: Run, outcomes: Sequence[Outcome], title: str, figure: str = ""
) -> Any:
    """A group of bars for each scenario; lines from the lowest round to the highest."""
    found = [_medians(outcome, figure or _speed(outcome)) for outcome in outcomes]
    bars = sum(len(each) for each in found)
    chart, axes = pyplot.subplots(figsize=(9, 1.4 + 0.15 * bars), layout="constrained")
    labelled: set[str] = set()
    top, ticks = 0.0, []
    for group in found:
        ticks.append(top + (len(group) - 1) / 2)
        for peer, ratio in group.items():
            label = None if peer in labelled else peer
            labelled.add(peer)
            axes.barh(top, ratio.median, 0.9, color=_COLOURS[peer], label=label)
            reach = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
            axes.errorbar(ratio.median, top, xerr=reach, color="#444444", linewidth=0.8)
            top += 1
        top += 1
    axes.set_yticks(ticks, [each.scenario for each in outcomes], fontsize=8)
    axes.set_ylim(top - 1, -1)
    # A single disturbed round must not make all other bars small.
    axes.set_xlim(0, 1.25 * max(ratio.median for group in found for ratio in group.values()))
    axes.axvline(1, color="#444444", linewidth=0.8)
    _finish(chart, axes, run, title)
    return chart


def _medians(outcome: Outcome, figure: str) -> dict[str, Spread]:
    """Ratios by peer, always in the same order."""
    found = {peer: spread(ratios(outcome, peer, figure)) for peer in _COLOURS}
    return {peer: ratio for peer, ratio in found.items() if ratio is not None}


def _latencies(pyplot: Any, run: Run, outcomes: Sequence[Outcome]) -> Any:
    """p99 over the number of connections."""
    chart, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    for peer, colour in _COLOURS.items():
        points = []
        for outcome in outcomes:
            found = spread(values(outcome, peer, figures.P99))
            if found:
                points.append((int(outcome.scenario.split("-")[2]), found.median / 1000))
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, label=peer, marker="o")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("connections")
    axes.set_ylabel("p99, ms")
    _finish(chart, axes, run, "Latency of keep-alive requests (less is better)")
    return chart


def _finish(chart: Any, axes: Any, run: Run, title: str) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    chart.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    where = f"{run.machine.processors} x {run.machine.processor}, Linux {run.machine.kernel}"
    chart.supxlabel(
        f"{where}; one worker or thread each; revision {run.revision[:10]}, {run.started[:10]}",
        fontsize=7,
        color="#666666",
    )


def _save(chart: Any, path: Path) -> Path:
    chart.savefig(path, metadata={"Date": None})
    return path
