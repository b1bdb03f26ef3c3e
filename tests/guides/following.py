"""How a guide is followed: its files are saved, and its commands typed one after the other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from tests.guides.page import ROOT, Command, page, programs
from tests.guides.shell import Shell
from tests.isolation import in_own_network

_WORDS: Final = {"cd", "do", "done", "exec", "export", "for", "kill", "uproxy", "wait", "while"}
"""Words that the shell knows, and the program that guides are about."""
_PATH: Final = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def prepared(directory: Path, text: str) -> None:
    """Save the files of a page; skip the test where the page cannot be followed."""
    if not in_own_network():
        pytest.skip("needs a network of its own (root), because guides use the usual ports")
    read = page(text)
    if lacking := missing(read.commands):
        pytest.skip(f"needs {', '.join(sorted(lacking))}")
    (directory / "examples").symlink_to(ROOT / "examples")
    for name, content in read.files.items():
        (directory / name).write_text(content)


def missing(commands: Iterable[Command]) -> set[str]:
    """Programs that a page needs and this machine lacks. A function that a page defines is none."""
    functions = {each.text.partition("(")[0] for each in commands if "() {" in each.text}
    wanted = set().union(*(programs(each) for each in commands)) - _WORDS - functions
    return {each for each in wanted if shutil.which(each, path=_PATH) is None}


def follow(typed: Shell, commands: Iterable[Command]) -> None:
    for each in commands:
        typed.follow(each)
