"""Protocols are told apart by one table, and their names are written there only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import uproxy
from uproxy.core import protocols
from uproxy.net.listening import SOCKET_TYPES

PACKAGE = Path(uproxy.__file__).parent
TABLE = Path(protocols.__file__)
MODULES = [each for each in sorted(PACKAGE.rglob("*.py")) if each != TABLE]
NAMES = ("TCP", "UDP", "SCTP")


def literals(source: str) -> Iterator[int]:
    """Lines on which a protocol is named by a string of its own, docstrings apart."""
    tree = ast.parse(source)
    docstrings = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in NAMES and id(node) not in docstrings:
            yield node.lineno


def test_no_other_module_writes_the_name_of_a_protocol() -> None:
    found = [f"{each}:{line}" for each in MODULES for line in literals(each.read_text())]
    assert MODULES
    assert not found


def test_a_name_is_found_wherever_it_may_be_written() -> None:
    source = '"""TCP"""\nif protocol == "TCP":\n    f"port/{show(\'UDP\')}"\n"""UDP"""\n'
    assert list(literals(source)) == [2, 3]


def test_every_served_protocol_has_a_socket_type() -> None:
    assert tuple(SOCKET_TYPES) == protocols.SERVED


def test_sctp_is_not_served() -> None:
    assert protocols.SERVED == ("TCP", "UDP")
