"""Where programs that may run as root import from: never from where they happen to be started."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import uproxy
from tests.e2e.program import program
from tests.io_uring import every_engine

NAMES = ("msgspec", "signal", "click", "difflib", "ctypes", "uvloop")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A directory with modules of names that the program imports, which note that they were."""
    directory = tmp_path / "trap"
    directory.mkdir()
    note = f"open({str(directory / 'sprung')!r}, 'a').write(__name__ + chr(10))\n"
    for name in NAMES:
        (directory / f"{name}.py").write_text(note)
    return directory


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    directory = tmp_path / "manifests"
    directory.mkdir()
    return directory


def start_in(directory: Path) -> list[str]:
    return ["env", "--unset=PYTHONSAFEPATH", f"--chdir={directory}"]


@every_engine
def test_nothing_is_imported_from_the_current_directory(
    manifests: Path, trap: Path, engine: str
) -> None:
    with program(manifests, f"--io-uring={engine}", wrapper=start_in(trap)) as running:
        relaying = {"auto": "io_uring", "never": "epoll"}[engine]
        assert {each["engine"] for each in running.status()["workers"]} == {relaying}
    assert not (trap / "sprung").exists()


def test_a_source_tree_runs_from_within_and_its_workers_are_its_own(
    manifests: Path, trap: Path
) -> None:
    """Not those of a uproxy that is installed."""
    shutil.copytree(Path(uproxy.__file__).parent, trap / "uproxy")
    with (trap / "uproxy" / "dataplane" / "worker.py").open("a") as worker:
        worker.write(f"\nopen({str(trap / 'own')!r}, 'a').write('worker')\n")
    with program(manifests, workers=1, wrapper=start_in(trap)):
        assert (trap / "own").read_text() == "worker"
    assert not (trap / "sprung").exists()
