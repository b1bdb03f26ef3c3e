"""Tables, verdicts and charts of a run."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from bench.wire import figures, results, tables
from bench.wire.cli import main
from bench.wire.results import Figure, Outcome
from bench.wire.statistics import Spread
from bench.wire.targets import Target, verdicts
from tests.bench.samples import outcome, requests, run

RATE = Figure(name=figures.RATE, unit="req/s")
P99 = Figure(name=figures.P99, unit="us", higher_is_better=False)


def rendered(table: Table) -> str:
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    return captured.get()


@pytest.mark.parametrize(
    ("found", "digits", "text"),
    [
        pytest.param(Spread(12345.6, 9.0, 9.0, 1), 0, "12,346", id="one round has no extremes"),
        pytest.param(Spread(1.0, 0.914, 1.2, 3), 2, "1.00 (0.91-1.20)", id="several rounds"),
    ],
)
def test_value_cell(found: Spread, digits: int, text: str) -> None:
    assert tables.value_cell(found, digits) == text


@pytest.mark.parametrize(
    ("figure", "own", "text"),
    [
        pytest.param(RATE, {"rate": 300.0}, "[green]1.50[/]\n300", id="more is better"),
        pytest.param(RATE, {"rate": 100.0}, "[red]0.50[/]\n100", id="less is worse"),
        pytest.param(RATE, {"rate": 202.0}, "[default]1.01[/]\n202", id="about the same"),
        pytest.param(P99, {"p99": 300.0}, "[red]1.50[/]\n300", id="more is worse"),
        pytest.param(P99, {"p99": 100.0}, "[green]0.50[/]\n100", id="less is better"),
        pytest.param(P99, {"rate": 100.0}, "-", id="not measured"),
    ],
)
def test_figure_cell(figure: Figure, own: dict[str, float], text: str) -> None:
    measured = outcome(haproxy=[{"rate": 200.0, "p99": 200.0}], uproxy=[own])
    assert tables.figure_cell(measured, "uproxy", figure) == text


def test_baseline_is_one() -> None:
    measured = outcome(haproxy=[{"rate": 200.0}], uproxy=[{"rate": 1.0}])
    assert tables.figure_cell(measured, "haproxy", RATE) == "1\n200"


def test_nothing_to_compare() -> None:
    assert tables.figure_cell(outcome(haproxy=[{"rate": 200.0}]), "haproxy", RATE) == "200"


def test_table_has_a_row_for_each_peer() -> None:
    measured = outcome(haproxy=[requests(100)], none=[requests(210, cpu=None)])
    text = rendered(tables.outcome_table(measured, run(measured)))
    assert "The scenario keep-alive-64" in text
    assert text.index("us/req") < text.index("req/s"), "CPU comes first"
    assert "2.10" in text
    assert [word for word in ("haproxy", "none", "us/req") if word not in text] == []


def test_table_says_where_it_was_measured() -> None:
    measured = replace(outcome(haproxy=[requests(100)]), load=3.25)
    text = rendered(tables.outcome_table(measured, replace(run(measured), nice=-10)))
    for word in ("2 x Z80", "Linux 6.1", "Python 3.11.2", "no PGO", "--nice -10", "load 3.2"):
        assert word in text


def test_growth_from_one_worker_to_two() -> None:
    one = outcome("keep-alive-64-t2", haproxy=[requests(100)], none=[requests(300, cpu=None)])
    two = outcome("two-workers-t2", haproxy=[requests(170, cpu=18)], uproxy=[requests(1)])
    table = tables.growth_table([one, two])
    assert table is not None
    text = rendered(table)
    assert "1.70" in text
    assert "1.20" in text
    assert "none" not in text
    assert tables.growth(one, two, "uproxy", figures.RATE) is None


def test_no_growth_without_both() -> None:
    assert tables.growth_table([outcome(haproxy=[requests(100)])]) is None


def test_errors_and_failures_are_said() -> None:
    bad = requests(1.0) | {figures.ERRORS: 4.0}
    assert tables.error_lines(outcome(haproxy=[requests(1.0)], go=[bad, None])) == [
        "keep-alive-64-t1: go had 4 errors",
        "keep-alive-64-t1: go failed in 1 of 2 rounds",
    ]


@pytest.mark.parametrize(
    ("target", "met"),
    [
        pytest.param(
            Target(scenario="s", figure="rate", peer="haproxy", bound=1.2), True, id="reached"
        ),
        pytest.param(
            Target(scenario="s", figure="rate", peer="haproxy", bound=1.3), False, id="not reached"
        ),
        pytest.param(
            Target(scenario="s", figure="rate", peer="haproxy", bound=1.3, at_least=False),
            True,
            id="at most",
        ),
        pytest.param(
            Target(scenario="s", figure="rate", bound=121, at_least=False), True, id="no peer"
        ),
        pytest.param(
            Target(scenario="s", figure="rate", peer="haproxy", bound=0.9, subject="uproxy-epoll"),
            False,
            id="by epoll",
        ),
    ],
)
def test_verdict(target: Target, met: bool) -> None:
    measured = outcome("s", haproxy=[{"rate": 100.0}], uproxy=[{"rate": 120.0}])
    measured.rounds["uproxy-epoll"] = [{"rate": 80.0}]
    assert [each.met for each in verdicts([measured], [target])] == [met]


def test_no_verdict_on_what_was_not_measured() -> None:
    measured = outcome("s", haproxy=[{"rate": 100.0}])
    target = Target(scenario="s", figure="rate", peer="haproxy", bound=1)
    assert verdicts([measured], [target]) == []
    assert verdicts([], [target]) == []


def test_stored_run_is_shown_again(tmp_path: Path) -> None:
    measured = outcome(haproxy=[requests(100), requests(200)], uproxy=[requests(150), None])
    stored = run(measured)
    path = results.write(stored, tmp_path / "new", "quick")
    assert path.name == "20260102T030405Z-0123456789-quick.json"
    assert results.read(path) == stored
    shown = CliRunner().invoke(main, ["--show", str(path)])
    assert shown.exit_code == 0
    for text in ("Z80", "1.50", "idle: go: closed", "uproxy failed in 1 of 2 rounds", "met"):
        assert text in shown.output


def test_run_as_markdown(tmp_path: Path) -> None:
    measured = outcome(haproxy=[requests(100)], uproxy=[requests(90, p99=2000, cpu=12)])
    measured.rounds["uproxy-epoll"] = [requests(110)]
    path = results.write(run(measured, outcome("churn-t1", "uproxy")), tmp_path)
    shown = CliRunner().invoke(main, ["--show", str(path), "--markdown"])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert "Z80" in lines[0]
    # CPU is met by io_uring, at most 0.9, and missed by epoll; the rate is the other way round.
    cells = ["keep-alive-64-t1", "haproxy", "0.80", "**1.00**", "**0.90**", "1.10", "1.00", "1.00"]
    assert lines[4:] == [f"| {' | '.join(cells)} |"]


def test_two_runs_are_compared(tmp_path: Path) -> None:
    old = run(outcome(haproxy=[requests(100)], uproxy=[requests(80)]))
    new = run(outcome(haproxy=[requests(50)], uproxy=[requests(50)]), outcome("new"))
    paths = [results.write(each, tmp_path / str(n)) for n, each in enumerate((old, new))]
    arguments = ["--show", str(paths[1]), "--against", str(paths[0])]
    shown = CliRunner().invoke(main, arguments).output
    assert "keep-alive-64-t1: rate of uproxy" in shown
    assert "+25 %" in shown
    assert "new: rate" not in shown


def test_without_a_peer_figures_are_compared() -> None:
    measured = outcome("churn", "uproxy", figures.CHURN, uproxy=[{"slowdown": 1.5}])
    assert "+0 %" in rendered(tables.comparison_table(run(measured), run(measured)))


def test_broken_file_is_not_a_run(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text('{"started": 1}')
    with pytest.raises(msgspec.ValidationError):
        results.read(path)


def test_charts(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from bench.wire import charts

    itself = replace(_compared("preserved"), baseline="uproxy-never")
    itself.rounds["uproxy-never"] = itself.rounds.pop("haproxy")
    stored = run(*(_compared(name) for name in ("keep-alive-1-t1", "keep-alive-64-t1")), itself)
    paths = charts.draw(stored, tmp_path)
    assert [each.name for each in paths] == ["tcp.svg", "cpu.svg", "latency.svg"]
    before = [each.read_bytes() for each in paths]
    assert [each.read_bytes() for each in charts.draw(stored, tmp_path)] == before
    assert [each for each in before if b"preserved" in each] == []


def _compared(name: str) -> Outcome:
    return outcome(
        name,
        haproxy=[requests(100), requests(90)],
        uproxy=[requests(110), requests(95)],
    )
