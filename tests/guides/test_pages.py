"""Every guide can be followed: its commands work as pasted, and show what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.guides import test_health_checks
from tests.guides.following import follow, missing, prepared
from tests.guides.page import GUIDES, Command, page, programs, shows
from tests.guides.shell import shell

INDEX: Final = GUIDES / "README.md"
PAGES: Final = sorted(
    each for each in GUIDES.glob("*.md") if each != INDEX and page(each.read_text()).commands
)
"""Pages with something to follow."""
ELSEWHERE: Final = {test_health_checks.GUIDE}
"""Followed by a test of its own."""
_NOT_RUN: Final = "ommands without a `$` need a cluster, and CI does not run them."


def test_what_a_page_tells_to_do() -> None:
    text = (
        "```yaml\n# a.yaml\nx: 1\n```\n\n```sh\nkubectl get\n```\n\n"
        "```console\n$ a b\n$ c \\\n    d\nout\n...\n$ e\n```\n"
    )
    found = page(text)
    assert found.files == {"a.yaml": "# a.yaml\nx: 1\n"}
    assert found.commands == [
        Command("a b", ""),
        Command("c \\\n    d", "out\n..."),
        Command("e", ""),
    ]


@pytest.mark.parametrize(
    ("shown", "output", "expected"),
    [
        ("a 12 ms", "a  8.5 ms\n", True),
        ("a 845 B\nb", "x\na 1.2 kB b\n", True),
        ("a\n...\nc", "a\nb\nc", True),
        ("c\n...\na", "a\nb\nc", False),
        ("pod-1 used", "pod-1 set aside", False),
        ("n1 10.0.0.1:80", "n1 10.0.0.2:80", False),
        ("HTTP/1.1 200 OK", "HTTP/1.1 503 Service Unavailable", False),
        ("at 10:00:01, pid 17", "at 23:59:59, pid 4", True),
    ],
)
def test_what_counts_as_the_output_of_a_page(shown: str, output: str, expected: bool) -> None:
    assert shows(shown, output) is expected


def test_programs_that_commands_need() -> None:
    line = "for n in 1 2; do a -x 'b | c' | d; done; e=$(f 1) && FOO=1 g &"
    assert programs(Command(line, "")) - {"done", "for"} == {"a", "d", "f", "g"}
    assert missing([Command("no-such-program 1", ""), Command("ls | cat", "")]) == {
        "no-such-program"
    }
    assert missing([Command("of_a_page() { ls; }", ""), Command("of_a_page &", "")]) == set()


@pytest.mark.parametrize(
    "path", [each for each in PAGES if each not in ELSEWHERE], ids=lambda each: each.stem
)
def test_it_can_be_followed(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    prepared(tmp_path, text)
    commands = page(text).commands
    assert commands
    with shell(tmp_path) as typed:
        follow(typed, commands)


def test_the_index_has_every_page() -> None:
    listed = re.findall(r"\(([\w-]+\.md)\)", INDEX.read_text())
    assert len(PAGES) >= 7
    assert set(listed) >= {each.name for each in PAGES}


@pytest.mark.parametrize("path", PAGES, ids=lambda each: each.stem)
def test_it_says_which_blocks_were_not_run(path: Path) -> None:
    text = path.read_text()
    scripts = text.split("```sh\n")[1:]
    not_run = [each for each in scripts if not each.startswith("# ")]
    assert bool(not_run) == (_NOT_RUN in " ".join(text.split()))
