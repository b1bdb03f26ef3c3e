"""What the wheel and the sdist contain."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from release.outcome import Outcome, judged, listed

NEEDED: Final = (
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "deploy/build-rootfs.sh",
    "deploy/systemd/uproxy.service",
    "docs/architecture.md",
    "examples/nodeport.yaml",
    "pyproject.toml",
    "requirements.txt",
    "tests/conftest.py",
    "uproxy/__init__.py",
)
"""What whoever packages uproxy for a distribution builds, tests and installs from the sdist."""

UNWANTED: Final = (".venv", "__pycache__", ".git", ".mypy_cache", ".hypothesis", "dist", "build")


def sdist_names(path: Path) -> list[str]:
    """Names of files, relative to the directory that the archive has everything in."""
    with tarfile.open(path) as archive:
        return [each.name.partition("/")[2] for each in archive if each.isfile()]


def wheel_names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def check_sdist(names: Sequence[str]) -> Outcome:
    missing = [each for each in NEEDED if each not in names]
    unwanted = [each for each in names if set(UNWANTED) & set(each.split("/"))]
    problem = f"lacks {listed(missing)}" if missing else ""
    if unwanted:
        problem = f"has files that are made, not written: {listed(unwanted)}"
    return judged("sdist", problem, f"{len(names)} files")


def check_wheel(names: Iterable[str], version: str, modules: Iterable[str]) -> Outcome:
    """A wheel has the package and nothing else. `modules`: the files of the package in the
    repository."""
    names = list(names)
    prefixes = ("uproxy/", f"uproxy-{version}.dist-info/")
    foreign = [each for each in names if not each.startswith(prefixes)]
    missing = sorted(set(modules) - set(names))
    problem = f"lacks {listed(missing)}" if missing else ""
    if foreign:
        problem = f"has files outside of the package: {listed(foreign)}"
    return judged("wheel", problem, f"{len(names)} files")
