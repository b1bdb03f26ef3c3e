"""What a check has found, and what to do about it.

A failure names something without which uproxy cannot work. A warning concerns only some Services or
loads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from uproxy.core.printable import printable


class Result(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    check: str
    result: Result
    text: str
    """What was found, and what it means if that is not obvious."""
    advice: str = ""
    """What to do; "" if there is nothing to do."""


def failed(findings: Iterable[Finding]) -> bool:
    """Whether uproxy cannot work."""
    return any(each.result is Result.FAIL for each in findings)


def fit_to_print(finding: Finding) -> Finding:
    """Names of interfaces and answers on ports may contain anything."""
    text, advice = printable(finding.text), printable(finding.advice)
    return msgspec.structs.replace(finding, text=text, advice=advice)


def few(names: Sequence[str]) -> str:
    """The first three."""
    return f"{', '.join(names[:3])}{' ...' * (len(names) > 3)}"
