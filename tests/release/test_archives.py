"""What the wheel and the sdist are to contain."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from release.archives import NEEDED, check_built, check_sdist, check_wheel, sdist_names, wheel_names
from release.outcome import Result

ROOT = Path(__file__).parents[2]


def test_what_a_packager_needs_is_there() -> None:
    assert [each for each in NEEDED if not (ROOT / each).is_file()] == []


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        pytest.param([*NEEDED], "", id="good"),
        pytest.param([*NEEDED[1:]], f"lacks {NEEDED[0]}", id="something is missing"),
        pytest.param([*NEEDED, "uproxy/__pycache__/a.pyc"], "__pycache__", id="compiled files"),
        pytest.param([*NEEDED, ".venv/bin/python"], ".venv", id="an environment"),
        pytest.param([*NEEDED, ".envrc"], "repository: .envrc", id="what git was told to ignore"),
        pytest.param([*NEEDED, "PKG-INFO"], "", id="metadata"),
    ],
)
def test_sdist(names: list[str], problem: str) -> None:
    found = check_sdist(names, NEEDED)
    assert found.result is (Result.FAIL if problem else Result.OK)
    assert problem in found.text


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        pytest.param(["uproxy/a.py", "uproxy-1.dist-info/METADATA"], "", id="good"),
        pytest.param(
            ["uproxy-1.dist-info/METADATA"], "lacks uproxy/a.py", id="a module is missing"
        ),
        pytest.param(["uproxy/a.py", "tests/b.py"], "tests/b.py", id="more than the package"),
        pytest.param(["uproxy/a.py", "uproxy/.envrc"], "repository: uproxy/.envrc", id="ignored"),
    ],
)
def test_wheel(names: list[str], problem: str) -> None:
    found = check_wheel(names, "1", ["uproxy/a.py"])
    assert found.result is (Result.FAIL if problem else Result.OK)
    assert problem in found.text


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        pytest.param(["a-1.whl", "a-1.tar.gz", "notes.md"], "", id="good"),
        pytest.param(["a-1.whl"], "instead of a-1.tar.gz", id="one is missing"),
        pytest.param(
            ["a-1rc1.whl", "a-1rc1.tar.gz"], "made a-1rc1.whl, a-1rc1.tar.gz", id="another version"
        ),
    ],
)
def test_what_the_build_has_made(found: list[str], problem: str) -> None:
    outcome = check_built(found, "a-1.whl", "a-1.tar.gz")
    assert outcome.result is (Result.FAIL if problem else Result.OK)
    assert problem in outcome.text


def test_names_in_archives(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("uproxy-1/docs/a.md"), io.BytesIO())
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("uproxy/a.py", "")
    assert sdist_names(tmp_path / "a.tar.gz") == ["docs/a.md"]
    assert wheel_names(tmp_path / "a.whl") == ["uproxy/a.py"]
