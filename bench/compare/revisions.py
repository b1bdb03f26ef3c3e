"""Other revisions of uproxy: their files in a worktree, and an interpreter to run them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.wire.processes import Unavailable, output_of
from bench.wire.uproxy_peer import HERE, Program

_CONSTRAINTS = "constraints.txt"


@contextmanager
def checked_out(revision: str, directory: Path) -> Iterator[Program]:
    """That revision, as long as the context is open. "." is the working tree itself.

    Raises Unavailable if there is no such revision, or its dependencies cannot be installed.
    """
    if revision == ".":
        yield HERE
        return
    commit = commit_of(revision)
    root = directory / f"revision-{commit[:10]}"
    _git("worktree", "add", "--detach", "--force", str(root), commit)
    try:
        yield Program(interpreter=_interpreter(root, directory), root=root)
    finally:
        _git("worktree", "remove", "--force", str(root))


def commit_of(revision: str) -> str:
    """The full name of a commit. Raises Unavailable if git does not know it."""
    try:
        return _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    except subprocess.CalledProcessError:
        raise Unavailable(
            f"git knows no revision {revision!r}; `git log --oneline` lists them"
        ) from None


def requirements(root: Path) -> list[str]:
    """What that revision must have installed to run, as its pyproject.toml says it."""
    document: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())
    found: list[str] = document["project"]["dependencies"]
    return found


def _interpreter(root: Path, directory: Path) -> str:
    """This one if both revisions depend on the same, otherwise one in an environment of its own."""
    if _dependencies(root) == _dependencies(HERE.root):
        return sys.executable
    environment = directory / f"{root.name}-venv"
    output_of([sys.executable, "-m", "venv", str(environment)], timeout=120)
    interpreter = str(environment / "bin" / "python")
    command = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--constraint", str(root / _CONSTRAINTS), *requirements(root)]
    output_of(command, timeout=600)
    return interpreter


def _dependencies(root: Path) -> tuple[list[str], str]:
    constraints = root / _CONSTRAINTS
    return requirements(root), constraints.read_text() if constraints.exists() else ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(HERE.root), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
