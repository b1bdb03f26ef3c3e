"""The versions of Python that are tested, claimed and asked for are the same ones."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
TESTED: list[str] = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]


def test_each_version_that_is_claimed_is_tested() -> None:
    prefix = "Programming Language :: Python :: 3."
    claimed = {
        each.removeprefix(prefix[:-2])
        for each in PROJECT["project"]["classifiers"]
        if each.startswith(prefix)
    }
    assert claimed
    assert claimed <= set(TESTED)


def test_the_oldest_one_is_what_the_project_asks_for() -> None:
    assert PROJECT["project"]["requires-python"] == f">={TESTED[0]}"
    assert PROJECT["tool"]["mypy"]["python_version"] == TESTED[0]
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{TESTED[0].replace('.', '')}"


def test_it_runs_the_one_script_and_may_do_little() -> None:
    steps = WORKFLOW["jobs"]["test"]["steps"]
    assert [each["run"].split()[-1] for each in steps if "run" in each] == [".ci/run"]
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert WORKFLOW["jobs"]["test"]["timeout-minutes"]
