"""`python -m release`: checks everything that a release needs, or prints its notes."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from release.archives import check_built, check_sdist, check_wheel, sdist_names, wheel_names
from release.audit import check_audit
from release.components import check_bill, check_licences
from release.installs import InstallError, check_installs, environment
from release.outcome import Outcome, Result, judged
from release.pinned import check_requirements, needed, versions
from release.repository import (
    check_changelog,
    check_links,
    check_tag,
    check_tree,
    claimed_pythons,
    section,
    version_in,
)

ROOT: Final = Path(__file__).parents[1]
DIST: Final = ROOT / "dist"
REQUIREMENTS: Final = ROOT / "requirements.txt"


def main() -> None:
    """Exit code 1 if a check fails."""
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("command", choices=["check", "notes"])
    arguments = parser.parse_args()
    version = version_in((ROOT / "uproxy" / "__init__.py").read_text())
    if arguments.command == "notes":
        found = section((ROOT / "CHANGELOG.md").read_text(), version)
        sys.exit(f"CHANGELOG.md has no section {version}") if found is None else print(found.text)
        return
    failed = False
    for check, result, text in checks(version):
        print(f"{check:<20}  {result:<7}  {text}", flush=True)
        failed |= result is Result.FAIL
    print(f"\nuproxy {version} can{'not' if failed else ''} be released.")
    sys.exit(failed)


def checks(version: str) -> Iterator[Outcome]:
    """All outcomes, the quickest ones first."""
    yield check_tree(_output("git", "status", "--porcelain", "--untracked-files=all"))
    here = _output("git", "tag", "--points-at", "HEAD").split()
    yield check_tag(here, _output("git", "tag").split(), version)
    yield check_changelog((ROOT / "CHANGELOG.md").read_text(), version)
    yield check_links((ROOT / "README.md").read_text())
    requirements = REQUIREMENTS.read_text()
    constraints = versions((ROOT / "constraints.txt").read_text())
    pyproject = (ROOT / "pyproject.toml").read_text()
    yield check_requirements(requirements, constraints, needed(pyproject))
    problem = _build()
    if problem:
        yield Outcome("build", Result.FAIL, problem)
        return
    wheel = DIST / f"uproxy-{version}-py3-none-any.whl"
    sdist = DIST / f"uproxy-{version}.tar.gz"
    found = check_built([each.name for each in DIST.iterdir()], wheel.name, sdist.name)
    yield found
    if found.result is Result.FAIL:
        return
    tracked = _output("git", "ls-files", "-z").split("\0")
    modules = [each for each in tracked if each.startswith("uproxy/")]
    yield check_wheel(wheel_names(wheel), version, modules)
    yield check_sdist(sdist_names(sdist), tracked)
    yield _described(wheel, sdist)
    yield from _components(version, versions(requirements))
    yield _audited()
    pythons = claimed_pythons(pyproject)
    for archive in (wheel, sdist):
        yield from check_installs(archive, pythons, ROOT / "examples", version)


def _build() -> str:
    """Write both archives into dist; returns why that failed, or ""."""
    DIST.mkdir(exist_ok=True)
    for old in [*DIST.glob("uproxy-*.whl"), *DIST.glob("uproxy-*.tar.gz")]:
        old.unlink()
    # The tools that build it are those that CI builds with.
    environ = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    words = [sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT)]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[-1] if done.returncode else ""


def _described(*archives: Path) -> Outcome:
    """Whether an index would take the archives, and show the README as it is meant."""
    words = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *map(str, archives)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    problem = " ".join(done.stdout.split()) if done.returncode else ""
    return judged("twine check", problem, "the metadata is valid and the description renders")


def _components(version: str, pinned: dict[str, str]) -> Iterator[Outcome]:
    """The bill of materials, for which everything is installed by its hash."""
    path = DIST / f"uproxy-{version}.cdx.json"
    try:
        with environment(
            Path(sys.executable), str(REQUIREMENTS), "--require-hashes", "--requirement"
        ) as program:
            bill = _bill(program.with_name("python"), path, version)
    except InstallError as error:
        yield Outcome("hashes", Result.FAIL, str(error))
        return
    yield Outcome("hashes", Result.OK, "pip --require-hashes installs requirements.txt")
    yield check_bill(bill, version, pinned)
    yield check_licences(bill)


def _bill(python: Path, path: Path, version: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    words += ["--pyproject", str(ROOT / "pyproject.toml"), "--output-format", "JSON"]
    done = subprocess.run(
        [*words, "--output-file", str(path), str(python)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InstallError(f"cyclonedx-py failed: {done.stderr.strip()[-200:]}")
    bill: dict[str, Any] = json.loads(path.read_text())
    # pyproject.toml has none, as it is in uproxy/__init__.py.
    bill["metadata"]["component"]["version"] = version
    path.write_text(json.dumps(bill, indent=2) + "\n")
    return bill


def _audited() -> Outcome:
    words = [sys.executable, "-m", "pip_audit", "--requirement", str(REQUIREMENTS), "--disable-pip"]
    words += ["--require-hashes", "--format", "json", "--progress-spinner", "off"]
    with tempfile.TemporaryDirectory() as cache:
        words += ["--cache-dir", cache]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    return check_audit(done.stdout, done.stderr)


def _output(*words: str) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
