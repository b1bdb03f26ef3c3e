"""What the documents name exists: links, headings that links point to, and paths in backticks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = ("docs", "deploy", "bench")
DOCUMENTS: Final = sorted(
    [*ROOT.glob("*.md"), *(path for each in FOLDERS for path in (ROOT / each).rglob("*.md"))]
)
PLACES: Final = (ROOT, ROOT / "uproxy", ROOT / "tests")
"""Folders that a path may be relative to, besides that of the document."""

CODE: Final = ("uproxy", "tests", "bench", "deploy", "examples", "docs")
"""Folders in which a bare name is looked for."""

LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
QUOTED = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[\w*.-]+(?:/[\w*.-]+)*/?")
SUFFIXES: Final = (".py", ".md", ".sh", ".go", ".yaml", ".env", ".svg")


def links(text: str) -> Iterator[str]:
    """Targets within this repository."""
    return (each for each in LINK.findall(text) if "://" not in each)


def quoted_paths(text: str) -> Iterator[str]:
    """What is in backticks and can only be a path here: it has the suffix of a file of ours, or
    begins with one of our folders."""
    folders = {each.name for place in PLACES for each in place.iterdir() if each.is_dir()}
    for quoted in QUOTED.findall(text):
        for word in quoted.split():
            path, _, _ = word.partition("::")
            first, slash, _ = path.partition("/")
            ours = path.endswith(SUFFIXES) or (slash and first in folders)
            if ours and PATH.fullmatch(path):
                yield path


def exists(path: str, document: Path) -> bool:
    """Whether a path, which may have "*" in it, leads somewhere; a bare name may be anywhere."""
    if "/" not in path:
        return any(any((ROOT / each).rglob(path)) for each in CODE)
    return any(any(place.glob(path)) for place in (document.parent, *PLACES))


def headings(document: Path) -> set[str]:
    """The anchors that a forge makes of a document's headings."""
    found = re.findall(r"^#+ (.+)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: str(each.relative_to(ROOT)))
def test_what_it_names_exists(document: Path) -> None:
    text = document.read_text()
    missing = [path for path in quoted_paths(text) if not exists(path, document)]
    for link in links(text):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in headings(target)):
            missing.append(link)
    assert not missing, f"these do not exist: {', '.join(missing)}"


def test_a_missing_path_is_noticed() -> None:
    text = "`uproxy/core/route.py`, `core/nothing.py`, `tests/nothing/`, `not a path`, `nothing.py`"
    found = list(quoted_paths(text))
    assert [each for each in found if not exists(each, ROOT / "README.md")] == [
        "core/nothing.py",
        "tests/nothing/",
        "nothing.py",
    ]


def test_decisions_are_numbered_one_by_one_and_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(folder.glob("0*.md"))
    numbers = [each.name[:4] for each in pages]
    assert numbers == [f"{each:04}" for each in range(1, len(pages) + 1)]
    titles = [each.read_text().splitlines()[0].removeprefix("# ") for each in pages]
    index = (folder / "README.md").read_text()
    listed = re.findall(r"^\* \[(\d+)\]\(([^)]+)\)(: .+)$", index, flags=re.MULTILINE)
    assert [path for _, path, _ in listed] == [each.name for each in pages]
    assert [f"{number}{title}" for number, _, title in listed] == titles
