"""What a plain scalar of YAML (a value without quotes) stands for, as Kubernetes reads it.

Kubernetes converts YAML to JSON by sigs.k8s.io/yaml, whose decoder follows YAML 1.1 in most things:
`yes`, `no`, `on` and `off` are true and false, 0777 and 0o777 are numbers of base 8, and digits may
be grouped by underscores. It does not follow it for dates and for numbers of base 60, which are
text. A decoder that went another way would read another value than kubectl sends to the API server
for the same file.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

_MAX_DIGITS = 100
"""Characters of a whole number; 64 digits in base 2, with a prefix and underscores."""
_WHOLE = range(-(2**63), 2**64)
"""The whole numbers that Kubernetes' decoder has. A larger one is a float to it, or text."""

_NUMBER_START = frozenset("-+.0123456789")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_PREFIXED = re.compile(r"([-+]?)0(?:x([0-9a-fA-F_]+)|b([01_]+)|o?([0-7_]+))")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


def _spellings(*words: str) -> list[str]:
    return [form for word in words for form in (word, word.capitalize(), word.upper())]


_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(["", "~", *_spellings("null")]),
    **dict.fromkeys(_spellings("true", "yes", "on"), True),
    **dict.fromkeys(_spellings("false", "no", "off"), False),
}


def plain_value(text: str) -> Any:
    """What a plain scalar stands for."""
    if text and text[0] in _NUMBER_START:
        return _number(text)
    return _WORDS.get(text, text)


def _number(text: str) -> int | float | str:
    number: int | float
    try:
        if len(text) <= _MAX_DIGITS and _INTEGER.fullmatch(text):
            number = int(text.replace("_", ""))
        elif len(text) <= _MAX_DIGITS and (match := _PREFIXED.fullmatch(text)):
            sign, *digits = match.groups()
            base, found = next((b, d) for b, d in zip((16, 2, 8), digits, strict=True) if d)
            number = int(sign + found.replace("_", ""), base)
            return number if number in _WHOLE else text
        elif _FLOAT.fullmatch(text):
            number = float(text.replace("_", ""))
        else:
            return text
    except ValueError:  # There are only underscores.
        return text
    if isinstance(number, int) and number in _WHOLE:
        return number
    return float(number) if math.isfinite(number) else text
