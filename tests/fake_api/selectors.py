"""Label and field selectors, as query parameters have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Match = Callable[[Mapping[str, Any]], bool]
"""Whether an object is selected."""

_TERM = re.compile(r"(!?)([^=!\s(]+)\s*(?:(==|=|!=)\s*(.*)|\s(in|notin)\s*\((.*)\))?", re.DOTALL)
_COMMA = re.compile(r",(?![^(]*\))")


def selection(labels: str, fields: str) -> Match:
    """Both selectors together. Raises ValueError for one that cannot be read."""
    wanted = [_label_term(each.strip()) for each in _COMMA.split(labels) if each.strip()]
    wanted += [_field_term(each.strip()) for each in fields.split(",") if each.strip()]
    return lambda data: all(match(data) for match in wanted)


def _label_term(text: str) -> Match:
    found = _TERM.fullmatch(text)
    if found is None:
        raise ValueError(f"unable to parse requirement: {text}")
    negated, key, operator, value, word, values = found.groups()

    def label(data: Mapping[str, Any]) -> str | None:
        labels: Mapping[str, str] = data["metadata"].get("labels") or {}
        return labels.get(key)

    if operator is not None:
        return lambda data: (label(data) == value) != (operator == "!=")
    if word is not None:
        listed = {each.strip() for each in values.split(",")}
        return lambda data: (label(data) in listed) != (word == "notin")
    return lambda data: (label(data) is None) == bool(negated)


def _field_term(text: str) -> Match:
    path, operator, value = re.split(r"(!=|==|=)", text, maxsplit=1)
    return lambda data: (_field(data, path.split(".")) == value) != (operator == "!=")


def _field(data: Any, parts: list[str]) -> str:
    for part in parts:
        data = data.get(part) or {}
    return str(data) if data != {} else ""
