"""Plain data as YAML, for people to read and edit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import yaml

_Dumper: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def write_yaml(documents: Iterable[Any]) -> str:
    """One document or several, with --- between them, in which fields keep their order.

    All of it is ASCII: other characters are escaped, so that nothing in it can harm a terminal.
    """
    return "---\n".join(map(_document, documents))


def _document(value: Any) -> str:
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        allow_unicode=False,
        default_flow_style=False,
        sort_keys=False,
        # A text stays on one line, for grep.
        width=2**20,
    )
    return text
