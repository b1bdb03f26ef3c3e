"""The tests themselves: each of them checks something."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

CHECKING = re.compile(r"(check|expect|assert|until)(_\w+)?|wait_for|eventually")
"""Names of functions that check something: those that wait do so by giving up at last."""

RAISING = {"pytest.raises", "pytest.fail", "pytest.warns", "asyncio.timeout"}


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, Function):
            yield node


def name_of(called: ast.expr) -> str:
    """The last part: of `a.b.check` it is `check`."""
    return ast.unparse(called).rpartition(".")[2]


def checks_something(function: Function) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert | ast.Raise):
            return True
        if isinstance(node, ast.Call) and (
            ast.unparse(node.func) in RAISING or CHECKING.fullmatch(name_of(node.func))
        ):
            return True
    return False


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS))
)
def test_each_test_checks_something(path: Path) -> None:
    """So does each function whose name says that it checks, as its callers rely on that."""
    idle = [
        f"{path.relative_to(TESTS.parent)}:{each.lineno}: {each.name} checks nothing"
        for each in functions(path)
        if each.name.startswith("test_") or CHECKING.fullmatch(each.name)
        if not checks_something(each)
    ]
    assert not idle, "\n".join(idle)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("run()", False),
        ("checked(run())", False),
        ("x = run()\n    return x", False),
        ("assert run()", True),
        ("await made.eventually(run)", True),
        ("with pytest.raises(ValueError): run()", True),
        ("check_picks(run())", True),
    ],
)
def test_what_counts_as_a_check(body: str, found: bool) -> None:
    (function,) = ast.parse(f"async def test_it():\n    {body}\n").body
    assert isinstance(function, Function)
    assert checks_something(function) is found
