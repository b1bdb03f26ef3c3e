"""requirements.txt, by which pip installs what was tested and nothing else, byte by byte."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping

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


def needed(pyproject: str) -> set[str]:
    """The packages that uproxy needs to serve a cluster."""
    project = tomllib.loads(pyproject)["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["cluster"]
    return {canonical(re.split(r"[^\w.-]", each, maxsplit=1)[0]) for each in wanted}


def check_requirements(
    requirements: str, constraints: Mapping[str, str], needed: Iterable[str]
) -> Outcome:
    """Whether all packages that are needed are there, have hashes, and the versions that CI tests
    with. pip would notice a missing one only if another package needs it, too."""
    pinned = versions(requirements)
    unsafe = without_hash(requirements)
    other = [name for name, version in pinned.items() if constraints.get(name) != version]
    problem = f"other versions than in constraints.txt: {listed(other)}" if other else ""
    missing = sorted({*needed} - pinned.keys())
    if missing:
        problem = f"lacks {listed(missing)}"
    if unsafe:
        problem = f"no hashes: {listed(unsafe)}"
    if not pinned:
        problem = "it is empty"
    advice = "; run: make requirements" if problem else ""
    return judged("requirements.txt", problem + advice, f"{len(pinned)} packages with hashes")
