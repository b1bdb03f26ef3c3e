"""What becomes of a run of the tests, and of a uproxy, where the kernel refuses io_uring."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.engines import doctor_on_io_uring, engines_that_serve
from tests.io_uring import REQUIRE

ROOT = Path(__file__).parent.parent
WITHOUT = [sys.executable, "-m", "tests.without_io_uring"]
NEEDS_IT = "tests/uring/test_loop.py::TestLoop::test_leaves_no_descriptor"
RUNS_ON_EVERY_LOOP = "tests/dataplane/test_reactor.py::test_deferred_failures_are_caught"


def pytest_without_io_uring(*tests: str, required: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WITHOUT, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={**os.environ, REQUIRE: required, "COLUMNS": "400"},
    )


def test_tests_that_need_it_are_skipped_and_the_summary_says_so() -> None:
    done = pytest_without_io_uring(NEEDS_IT, RUNS_ON_EVERY_LOOP, required="")
    assert done.returncode == 0, done.stdout
    # On asyncio and uvloop the second of them runs; on the ring it has not vanished.
    assert "2 passed, 2 skipped" in done.stdout
    assert done.stdout.count("needs io_uring, which cannot be used here") == 2
    (line,) = [each for each in done.stdout.splitlines() if "did NOT run" in each]
    assert "(Operation not permitted)" in line
    assert "kernel.io_uring_disabled=0" in line


def test_a_run_that_requires_it_fails_before_its_first_test() -> None:
    done = pytest_without_io_uring(RUNS_ON_EVERY_LOOP, required="1")
    assert done.returncode not in (0, 1), "1 means that tests were run, and failed"
    assert "passed" not in done.stdout
    assert f"{REQUIRE}=1, but io_uring cannot be used here (Operation not permitted)" in done.stderr


def test_so_does_one_in_several_processes() -> None:
    done = pytest_without_io_uring("-n", "2", RUNS_ON_EVERY_LOOP, required="1")
    assert done.returncode not in (0, 1)
    assert f"{REQUIRE}=1, but io_uring cannot be used here" in done.stderr


def test_the_program_serves_without_it_and_the_doctor_says_why(tmp_path: Path) -> None:
    assert engines_that_serve(WITHOUT, tmp_path) == {"epoll"}
    found = doctor_on_io_uring(WITHOUT)
    assert found["result"] == "warn"
    assert found["text"].startswith("refused by a seccomp filter (Operation not permitted): ")
