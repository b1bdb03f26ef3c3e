"""What `make coverage` says about a module of which one branch was taken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.measuring import unmeasured

MODULE = """\
def sign(number):
    if number < 0:
        return "minus"
    return "plus"


def twice(numbers):
    for each in numbers:
        print(each)


sign(1)
twice([1])
"""


def test_branches_that_are_not_taken_are_named(tmp_path: Path) -> None:
    (tmp_path / "uproxy" / "core").mkdir(parents=True)
    module = tmp_path / "uproxy" / "core" / "number.py"
    module.write_text(MODULE)

    def run(*words: str) -> str:
        command = [sys.executable, "-m", *words]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=unmeasured(), check=True
        )
        return done.stdout

    run("coverage", "run", "--branch", "uproxy/core/number.py")
    run("coverage", "json", "-q", "-o", "report.json")
    files = json.loads((tmp_path / "report.json").read_text())["files"]
    assert list(files) == ["uproxy/core/number.py"]
    script = Path(__file__).parent / "branches.py"
    done = subprocess.run(
        [sys.executable, script, "report.json", "core", "uring"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "core: 1 branches that no test takes",
        "  uproxy/core/number.py:2 -> 3  sign",
        "",
        "uring: 0 branches that no test takes",
        "",
        "package              branches              lines",
        "core               3/4  75.0%         8/9  88.9%",
        "all                3/4  75.0%         8/9  88.9%",
    ]
