"""Files for a forge: workflows run what anyone can run by make, and forms can be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FORGE = ROOT / ".github"
WORKFLOWS = sorted((FORGE / "workflows").glob("*.yml"))
FORMS = [each for each in sorted((FORGE / "ISSUE_TEMPLATE").glob("*.yml")) if each.stem != "config"]
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def name(path: Path) -> str:
    return path.stem


def test_there_are_some() -> None:
    assert [each.stem for each in WORKFLOWS] == ["release", "test"]
    assert {"demo", "test", "release-check", "dist"} <= TARGETS
    assert len(FORMS) == 2


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_a_workflow_may_do_little_and_ends(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}, "each job asks for more by itself"
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 45
        assert set(job.get("needs", "").split()) <= workflow["jobs"].keys()


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_an_action_has_a_version(path: Path) -> None:
    used = [each["uses"] for each in steps(read(path)) if "uses" in each]
    assert used
    assert [
        each for each in used if not re.search(r"@(v\d+|release/v\d+|[0-9a-f]{40})$", each)
    ] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_a_workflow_runs_targets_and_scripts_that_exist(path: Path) -> None:
    lines = "\n".join(each["run"] for each in steps(read(path)) if "run" in each)
    assert set(re.findall(r"\bmake (?:--\S+ )*([a-z-]+)", lines)) <= TARGETS
    scripts = re.findall(r"(?<!\S)(\.ci/\S+)", lines)
    assert [each for each in scripts if not (ROOT / each).is_file()] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_no_expression_is_put_into_a_shell(path: Path) -> None:
    """The name of a branch or tag could be a command. Variables are not read as commands."""
    assert [each["run"] for each in steps(read(path)) if "${{" in each.get("run", "")] == []


def test_a_release_is_what_was_checked() -> None:
    workflow = read(FORGE / "workflows" / "release.yml")
    build, pypi = workflow["jobs"]["build"], workflow["jobs"]["pypi"]
    assert "make release-check" in [each.get("run") for each in build["steps"]]
    assert pypi["needs"] == "build"
    assert pypi["permissions"] == {"id-token": "write"}, "trusted publishing needs no secret"
    assert "secrets." not in (FORGE / "workflows" / "release.yml").read_text()
    # YAML 1.1 takes the key `on` for a truth value.
    assert workflow[True]["push"] == {"tags": ["v*"]}  # type: ignore[index]


@pytest.mark.parametrize("path", FORMS, ids=name)
def test_a_form_has_what_a_forge_needs(path: Path) -> None:
    form = read(path)
    assert {"name", "description", "body"} <= form.keys()
    fields = [each for each in form["body"] if each["type"] != "markdown"]
    assert all(each["attributes"]["label"] for each in fields)
    names = [each["id"] for each in fields]
    assert len(set(names)) == len(names)


def test_dependabot_looks_where_there_is_something() -> None:
    found = read(FORGE / "dependabot.yml")
    assert found["version"] == 2
    for each in found["updates"]:
        for folder in each.get("directories", [each.get("directory")]):
            assert (ROOT / folder.lstrip("/")).is_dir(), folder
