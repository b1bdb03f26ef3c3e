"""What a repository has to look like for a release."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import uproxy
from release.outcome import Result
from release.repository import (
    check_changelog,
    check_links,
    check_tag,
    check_tree,
    claimed_pythons,
    section,
    version_in,
)

ROOT = Path(__file__).parents[2]
CHANGELOG = """# Changelog

## Unreleased

## 1.2.0 - 2026-01-31

### Added

* Something.

## 1.1.0 - 2025-12-24

* Less.
"""


def test_the_version_is_in_one_place() -> None:
    assert version_in((ROOT / "uproxy" / "__init__.py").read_text()) == uproxy.__version__
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
    with pytest.raises(ValueError, match="no __version__"):
        version_in("version = 1")


def test_pythons_of_the_classifiers() -> None:
    prefix = "Programming Language :: Python ::"
    names = [
        f"{prefix} 3",
        f"{prefix} 3.11",
        f"{prefix} 3.12",
        f"{prefix} Implementation :: CPython",
    ]
    assert claimed_pythons(f"[project]\nclassifiers = {names}") == ["3.11", "3.12"]


def test_a_clean_tree() -> None:
    assert check_tree("").result is Result.OK
    found = check_tree(" M README.md\n?? notes.txt\n")
    assert found.result is Result.FAIL
    assert "README.md, notes.txt" in found.text


@pytest.mark.parametrize(
    ("here", "everywhere", "result", "text"),
    [
        pytest.param(["v1.2.0"], ["v1.2.0"], Result.OK, "this commit is v1.2.0", id="tagged"),
        pytest.param([], ["v1.1.0"], Result.SKIPPED, "git tag --annotate v1.2.0", id="not yet"),
        pytest.param(["v1.1.0"], ["v1.1.0"], Result.FAIL, "__version__ is 1.2.0", id="another one"),
        pytest.param([], ["v1.2.0"], Result.FAIL, "raise __version__", id="released before"),
        pytest.param(["nightly"], ["nightly"], Result.SKIPPED, "git tag", id="no version"),
    ],
)
def test_tags(here: list[str], everywhere: list[str], result: Result, text: str) -> None:
    found = check_tag(here, everywhere, "1.2.0")
    assert found.result is result
    assert text in found.text


@pytest.mark.parametrize(
    ("changelog", "version", "problem"),
    [
        pytest.param(CHANGELOG, "1.2.0", "", id="good"),
        pytest.param(CHANGELOG, "1.3.0", "has no section for it", id="no section"),
        pytest.param(CHANGELOG.replace(" - 2026-01-31", ""), "1.2.0", "a date", id="no date"),
        pytest.param(CHANGELOG.replace("-01-31", "-02-31"), "1.2.0", "a date", id="no such date"),
        pytest.param(
            CHANGELOG.replace("### Added\n\n* Something.\n", ""), "1.2.0", "is empty", id="empty"
        ),
        pytest.param(
            CHANGELOG.replace("## Unreleased\n", "## Unreleased\n\n* More.\n"),
            "1.2.0",
            "move them",
            id="something is left above",
        ),
        pytest.param(
            CHANGELOG.replace("1.1.0 - 2025-12-24", "1.2.0 - 2026-01-30"),
            "1.2.0",
            "two sections",
            id="twice",
        ),
        pytest.param(CHANGELOG.replace("## Unreleased\n", ""), "1.2.0", "comes next", id="no top"),
    ],
)
def test_changelog(changelog: str, version: str, problem: str) -> None:
    found = check_changelog(changelog, version)
    assert found.result is (Result.FAIL if problem else Result.OK)
    assert problem in found.text


@pytest.mark.parametrize(
    ("readme", "result"),
    [
        pytest.param(
            "[a](https://example.org/a), [b](#b), <http://127.0.0.1/>", Result.OK, id="ok"
        ),
        pytest.param("[a](docs/a.md)", Result.SKIPPED, id="a page of the repository"),
        pytest.param("![a](docs/a.png)", Result.SKIPPED, id="a picture"),
    ],
)
def test_links_on_the_page_of_an_index(readme: str, result: Result) -> None:
    found = check_links(readme)
    assert found.result is result
    assert found.text.startswith("1 are relative") == (result is Result.SKIPPED)


def test_notes_are_those_of_one_version() -> None:
    found = section(CHANGELOG, "1.2.0")
    assert found is not None
    assert found.text == "### Added\n\n* Something."


def test_our_changelog_has_a_place_for_what_comes_next() -> None:
    titles = re.findall("^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "Unreleased"
