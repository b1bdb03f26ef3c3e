"""The shape of the house: the size of its modules, and a place for each of them."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "uproxy"
LONGEST = 350
"""Lines of a module: about what fits in a head."""

MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({each.parent for each in MODULES})


def name(folder: Path) -> str:
    return ".".join(folder.relative_to(ROOT).parts)


def children(folder: Path) -> set[str]:
    """The modules and packages of a folder, as import contracts name them."""
    modules = {each.stem for each in folder.glob("*.py")} - {"__init__"}
    return modules | {each.parent.name for each in folder.glob("*/__init__.py")}


def layers() -> dict[str, set[str]]:
    """What the import contracts place, by package."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    found = {}
    for section in contracts.values():
        if section.get("type") != "layers":
            continue
        names = section["layers"].replace("|", " ").split()
        container = section.get("containers", "uproxy").strip()
        if container == "uproxy" or section.get("exhaustive") == "True":
            found[container] = {each.removeprefix("uproxy.") for each in names}
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda each: str(each.relative_to(PACKAGE)))
def test_a_module_is_short(module: Path) -> None:
    lines = len(module.read_text().splitlines())
    assert lines <= LONGEST, f"{lines} lines: it has more than one subject"


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_every_module_is_in_a_layer(folder: Path) -> None:
    """lint-imports fails for those in no layer of an exhaustive contract; here for folders that
    have none, where nobody would notice."""
    if len(children(folder)) > 1:
        assert layers().get(name(folder)) == children(folder)


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_every_folder_is_on_the_map(folder: Path) -> None:
    path = folder.relative_to(ROOT)
    assert f"`{path}/`" in (ROOT / "docs" / "architecture.md").read_text()


def test_every_package_says_what_it_is_for() -> None:
    silent = [name(each) for each in FOLDERS if '"""' not in (each / "__init__.py").read_text()]
    assert silent == []
