"""What makes two revisions comparable, and what is concluded from their pairs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.compare import bursts, cli, measure, revisions
from bench.compare.measure import Cost, Row
from bench.compare.pairs import Pairs, Verdict, median_interval
from bench.wire.places import Place
from bench.wire.processes import Unavailable
from bench.wire.uproxy_peer import Program

BODY = 3_000_000


def pairs(*ratios: float) -> Pairs:
    """As if the older revision had always cost 100."""
    return Pairs([100.0] * len(ratios), [100 * each for each in ratios])


class TestPairs:
    @pytest.mark.parametrize(
        ("ratios", "verdict"),
        [
            pytest.param([1.04 + n / 1000 for n in range(20)], Verdict.DEARER, id="all above"),
            pytest.param([0.99 + n / 1000 for n in range(20)], Verdict.WITHIN, id="all below"),
            pytest.param([1.02 + n / 1000 for n in range(20)], Verdict.UNDECIDED, id="around"),
            pytest.param([1.2, 1.3, 0.9], Verdict.UNDECIDED, id="too few, one below"),
            pytest.param([1.0] * 17 + [9.0] * 3, Verdict.WITHIN, id="disturbed pairs"),
        ],
    )
    def test_verdict(self, ratios: Sequence[float], verdict: Verdict) -> None:
        assert pairs(*ratios).verdict is verdict

    def test_figures(self) -> None:
        found = pairs(1.0, 1.1, 1.2, 1.3, 1.4)
        assert found.median == pytest.approx(1.2)
        assert found.quartiles == pytest.approx((1.05, 1.35))
        assert (found.typical_older, found.typical_newer) == pytest.approx((100, 120))

    @pytest.mark.parametrize(
        ("count", "expected"),
        [
            # Ranks from a table of the sign test's intervals, at 95 %.
            pytest.param(6, (1, 6), id="six"),
            pytest.param(10, (2, 9), id="ten"),
            pytest.param(20, (6, 15), id="twenty"),
            pytest.param(50, (18, 33), id="fifty"),
            pytest.param(3, (1, 3), id="all, where they are few"),
            pytest.param(1, (1, 1), id="one"),
        ],
    )
    def test_interval(self, count: int, expected: tuple[int, int]) -> None:
        values = [float(n) for n in range(count, 0, -1)]
        assert median_interval(values, 0.95) == expected


class TestRevisions:
    @pytest.fixture
    def tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A repository with two commits and a change that is not committed."""
        root = tmp_path / "tree"
        root.mkdir()
        (root / "pyproject.toml").write_text('[project]\ndependencies = ["click"]\n')
        git(root, "init", "--quiet")
        for text in ("first", "second", "third"):
            (root / "code.py").write_text(text)
            if text != "third":
                git(root, "add", ".")
                git(root, "commit", "--quiet", "--message", text)
        monkeypatch.setattr(revisions, "HERE", Program(interpreter="python", root=root))
        return root

    def test_other_revision_is_checked_out_and_removed(self, tree: Path, tmp_path: Path) -> None:
        with revisions.checked_out("HEAD~1", tmp_path) as program:
            assert (program.root / "code.py").read_text() == "first"
            assert program.root != tree
        assert not program.root.exists()
        assert len(git(tree, "worktree", "list").splitlines()) == 1

    def test_equal_dependencies_share_the_interpreter(self, tree: Path, tmp_path: Path) -> None:
        with revisions.checked_out("HEAD", tmp_path) as program:
            assert program.interpreter == sys.executable

    def test_no_revision_is_the_working_tree(self, tree: Path, tmp_path: Path) -> None:
        with revisions.checked_out(".", tmp_path) as program:
            assert (program.root / "code.py").read_text() == "third"

    def test_unknown_revision(self, tree: Path) -> None:
        with pytest.raises(Unavailable, match="no revision 'nonsense'"):
            revisions.commit_of("nonsense")


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class _Answering(BaseHTTPRequestHandler):
    """Answers as the backend of the benchmark does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"b" * BODY if self.path == "/big" else b"ok\n"
        self.server.asked.append(self.headers["Connection"])  # type: ignore[attr-defined]
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.wfile.write(head + body)

    def log_message(self, *args: object) -> None:
        """Nothing: requests are no news."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True
        asked: list[str | None] = []  # noqa: RUF012

    with Server(("127.0.0.1", 0), _Answering) as found:
        found.asked = []
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("load", "operations", "requests", "header"),
    [
        pytest.param("connections", 256, 256, "close", id="connections"),
        pytest.param("keep-alive-64", 1024, 1024, None, id="keep-alive"),
        pytest.param("bulk-8", 8 * BODY / 1e6, 8, None, id="bulk"),
    ],
)
def test_a_burst_does_as_much_as_it_says(
    server: ThreadingHTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    load: str,
    operations: float,
    requests: int,
    header: str | None,
) -> None:
    monkeypatch.setattr(bursts, "BODY", BODY)
    places = {"http": Place("127.0.0.1", server.server_port)}
    with bursts.LOADS[load].begin(places) as burst:
        assert burst() == pytest.approx(operations)
        assert server.asked == [header] * requests  # type: ignore[attr-defined]
        assert burst() == pytest.approx(operations)


def test_revisions_take_turns_at_being_first() -> None:
    turns: list[str] = []

    def burst(name: str) -> float:
        turns.append(name)
        return 1.0

    row = Row("connections", "epoll")
    samples = {row: measure.Samples()}
    pair = [measure.Contestant(partial(burst, name), []) for name in ("older", "newer")]
    measure.take_turns({row: pair}, samples, lambda: len(turns) == 4)
    assert turns == ["older", "newer", "newer", "older"]
    assert [len(each) for each in samples[row].cpu] == [2, 2]


def test_cost_is_the_workers_cpu_for_each_operation() -> None:
    work = measure.Contestant(lambda: float(sum(1 for _ in range(100_000))), [os.getpid()])
    before = time.process_time()
    cpu, elapsed = work.measure()
    assert 0 < cpu * 100_000 / 1e6 <= time.process_time() - before
    assert elapsed > 0


def test_nothing_answered_is_no_cost() -> None:
    with pytest.raises(Unavailable, match="nothing was answered"):
        measure.Contestant(lambda: 0.0, []).measure()


@pytest.mark.parametrize(
    ("processors", "expected"),
    [
        pytest.param([0, 1], ([0], [1]), id="two"),
        pytest.param([0, 1, 2, 5], ([0, 1, 2], [5]), id="four"),
        pytest.param([3], ([3], [3]), id="one for all"),
    ],
)
def test_uproxy_has_a_processor_of_its_own(
    processors: list[int], expected: tuple[list[int], list[int]]
) -> None:
    assert cli.divided(processors) == expected


@pytest.mark.parametrize(
    ("ratio", "code"),
    [pytest.param(1.1, 1, id="dearer"), pytest.param(1.0, 0, id="the same")],
)
def test_exit_code(monkeypatch: pytest.MonkeyPatch, ratio: float, code: int) -> None:
    found = {Row("connections", "epoll"): Cost(pairs(*[ratio] * 20), pairs(*[1.0] * 20))}
    monkeypatch.setattr(cli, "_measured", lambda *_: found)
    result = CliRunner().invoke(cli.main, ["."])
    assert result.exit_code == code, result.output
    assert f"{ratio:.3f}" in result.output
