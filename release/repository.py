"""What the repository says about a version: a clean tree, a tag, a section of the changelog."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from datetime import date
from typing import NamedTuple

from release.outcome import Outcome, Result, judged, listed


def version_in(source: str) -> str:
    """The version in the text of uproxy/__init__.py, which is the only place that has it."""
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise ValueError("uproxy/__init__.py has no __version__")
    return found[1]


def claimed_pythons(pyproject: str) -> list[str]:
    """The versions of Python for which the project says that it works."""
    prefix = "Programming Language :: Python :: "
    classifiers = tomllib.loads(pyproject)["project"]["classifiers"]
    versions = (each.removeprefix(prefix) for each in classifiers if each.startswith(prefix))
    return [each for each in versions if re.fullmatch(r"3\.\d+", each)]


def check_tree(porcelain: str) -> Outcome:
    """From what `git status --porcelain` prints. Files that git does not know would be part of the
    sdist."""
    changed = [line[3:] for line in porcelain.splitlines()]
    problem = f"commit or remove these first: {listed(changed)}" if changed else ""
    return judged("clean tree", problem, "nothing is changed")


def check_tag(here: Iterable[str], everywhere: Iterable[str], version: str) -> Outcome:
    """From the tags of this commit, and all tags."""
    wanted = f"v{version}"
    if wanted in here:
        return Outcome("tag", Result.OK, f"this commit is {wanted}")
    if wanted in everywhere:
        text = f"{wanted} is another commit: raise __version__ in uproxy/__init__.py"
        return Outcome("tag", Result.FAIL, text)
    others = [each for each in here if re.match(r"v\d", each)]
    if others:
        text = f"this commit is {listed(others)}, but __version__ is {version}"
        return Outcome("tag", Result.FAIL, text)
    text = f"when all else is ok: git tag --annotate {wanted} --message 'uproxy {version}'"
    return Outcome("tag", Result.SKIPPED, text)


class Section(NamedTuple):
    """What the changelog says about a version."""

    date: str
    text: str


def section(changelog: str, version: str) -> Section | None:
    """The section with the title "VERSION - DATE"; None: there is none."""
    parts = re.split(r"^## (.+)$", changelog, flags=re.MULTILINE)
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        name, _, when = title.partition(" - ")
        if name.strip("[] ") == version:
            return Section(when.strip(), text.strip())
    return None


def check_changelog(changelog: str, version: str) -> Outcome:
    """Whether the changelog has a section of this version, with a date, and nothing waits above it
    for the next one."""
    found, unreleased = section(changelog, version), section(changelog, "Unreleased")
    if found is None:
        problem = f'has no section for it: write "## {version} - YYYY-MM-DD" below "Unreleased"'
    elif len(re.findall(rf"^## \[?{re.escape(version)}\]?(?: |$)", changelog, re.MULTILINE)) > 1:
        problem = "has two sections for it, of which only the first would be published"
    elif not _is_date(found.date):
        problem = f'the title of the section is to end in a date, as in "## {version} - 2026-01-31"'
    elif not found.text:
        problem = "its section is empty"
    elif unreleased is None:
        problem = 'has no section "Unreleased" for what comes next'
    elif unreleased.text:
        problem = 'the section "Unreleased" has changes that this commit contains, too: move them'
    else:
        return Outcome("changelog", Result.OK, f"{version}, {found.date}")
    return Outcome("changelog", Result.FAIL, problem)


def check_links(readme: str) -> Outcome:
    """Whether the links of the README lead somewhere on the page that an index makes of it: there,
    they need the address of the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", readme)
    relative = [each for each in targets if not re.match(r"https?://|#|mailto:", each)]
    if not relative:
        return Outcome("links of README", Result.OK, "all of them are absolute")
    text = (
        f"{len(relative)} are relative and lead nowhere on the page of an index; make them "
        "absolute, and set project.urls, once the repository has a public address"
    )
    return Outcome("links of README", Result.SKIPPED, text)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
