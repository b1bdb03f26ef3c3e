"""requirements.txt, by which pip installs what was tested and nothing else, byte by byte."""

from __future__ import annotations

import re
from collections.abc import Mapping

from release.components import canonical
from release.outcome import Outcome, judged, listed


def versions(text: str) -> dict[str, str]:
    """The versions in requirements.txt or constraints.txt."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {canonical(name): version for name, version in found}


def without_hash(requirements: str) -> list[str]:
    """Packages of requirements.txt for which it has no hash."""
    entries = re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n?", "", requirements, flags=re.MULTILINE))
    return [each.partition("==")[0] for each in entries if each and "--hash=sha256:" not in each]


def check_requirements(requirements: str, constraints: Mapping[str, str]) -> Outcome:
    """Whether all packages have hashes, and the versions that CI tests with."""
    pinned = versions(requirements)
    unsafe = without_hash(requirements)
    other = [name for name, version in pinned.items() if constraints.get(name) != version]
    problem = f"other versions than in constraints.txt: {listed(other)}" if other else ""
    if unsafe:
        problem = f"no hashes: {listed(unsafe)}"
    if not pinned:
        problem = "it is empty"
    advice = "; run: make requirements" if problem else ""
    return judged("requirements.txt", problem + advice, f"{len(pinned)} packages with hashes")
