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
"""What the sdist needs, so that people can package uproxy for a distribution: they build, test and
install it from there."""

UNWANTED: Final = (".venv", "__pycache__", ".git", ".mypy_cache", ".hypothesis", "dist", "build")


def sdist_names(path: Path) -> list[str]:
    """Names of files, relative to the directory that the archive has everything in."""
    with tarfile.open(path) as archive:
        return [each.name.partition("/")[2] for each in archive if each.isfile()]


def wheel_names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def check_built(found: Sequence[str], *wanted: str) -> Outcome:
    """Whether the build has made what is to be checked. The names of archives have a version in its
    normal form (1.0.0rc1), and another spelling of it would leave nothing to check."""
    missing = [each for each in wanted if each not in found]
    made = [each for each in found if each.endswith((".whl", ".tar.gz"))]
    problem = f"made {listed(made)} instead of {listed(missing)}" if missing else ""
    if problem:
        problem += "; write __version__ as the names of archives have it"
    return judged("build", problem, "wheel and sdist are in dist/")


def check_sdist(names: Sequence[str], tracked: Iterable[str]) -> Outcome:
    """An sdist has what is in the repository (`tracked`) and nothing else.

    The build leaves out what .gitignore names, but not what only this machine makes git ignore, by
    .git/info/exclude or core.excludesFile: often files with secrets, such as .envrc."""
    missing = [each for each in NEEDED if each not in names]
    foreign = sorted(set(names) - set(tracked) - {"PKG-INFO"})
    unwanted = [each for each in names if set(UNWANTED) & set(each.split("/"))]
    problem = f"lacks {listed(missing)}" if missing else ""
    if foreign:
        problem = f"has files that are not in the repository: {listed(foreign)}"
    if unwanted:
        problem = f"has files that tools have made: {listed(unwanted)}"
    return judged("sdist", problem, f"{len(names)} files")


def check_wheel(names: Iterable[str], version: str, modules: Iterable[str]) -> Outcome:
    """A wheel has the package and nothing else. `modules`: the files of the package in the
    repository."""
    names, modules = list(names), list(modules)
    prefixes = ("uproxy/", f"uproxy-{version}.dist-info/")
    foreign = [each for each in names if not each.startswith(prefixes)]
    unknown = sorted({each for each in names if each.startswith(prefixes[0])} - {*modules})
    missing = sorted({*modules} - {*names})
    problem = f"lacks {listed(missing)}" if missing else ""
    if unknown:
        problem = f"has files that are not in the repository: {listed(unknown)}"
    if foreign:
        problem = f"has files outside of the package: {listed(foreign)}"
    return judged("wheel", problem, f"{len(names)} files")
