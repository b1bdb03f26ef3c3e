"""From the decoder's error about a document to a sentence that says what to write instead."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from msgspec import inspect

from uproxy.core.cluster.decode import DecodeError
from uproxy.core.suggestions import did_you_mean
from uproxy.text.document import Parts, parse_parts, value_at

_MISSING = re.compile(r"object missing required field (?P<field>\S+)")
_UNKNOWN = re.compile(r"object contains unknown field (?P<field>\S+)")
_MISMATCH = re.compile(r"expected (?P<wanted>.+), got (?P<got>\w+)")
_EXPECTED = re.compile(r"^expected (?P<name>int|float|str)\b")
_SHORT_NUMBER = re.compile(r"-?[0-9]{1,19}")
_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


class Advice(NamedTuple):
    field: Parts
    reason: str


def advise(error: DecodeError, document: Any, kind: type[Any]) -> Advice:
    """Which field is wrong, and how to correct it. `kind` is the type that was to be decoded."""
    parts = parse_parts(error.path, document)
    if match := _MISSING.fullmatch(error.what):
        return Advice((*parts, match["field"]), "is missing; it is required")
    if match := _UNKNOWN.fullmatch(error.what):
        known = _fields_at(kind, parts)
        return Advice(
            (*parts, match["field"]), f"unknown field{did_you_mean(match['field'], known)}"
        )
    return Advice(parts, _reason(error.what, value_at(document, parts), _choices_at(kind, parts)))


def one_of(choices: list[str]) -> str:
    """'a, b or c', for a sentence."""
    return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]


def _reason(what: str, value: Any, choices: list[str]) -> str:
    if choices:
        return f"{_shown(value)} is not {one_of(choices)}{did_you_mean(str(value), choices)}"
    match = _MISMATCH.fullmatch(what)
    if match is None:
        what = _EXPECTED.sub(lambda found: f"expected {_NAMES[found['name']]}", what)
        if isinstance(value, dict | list) or not what.startswith("expected") or "found" in what:
            return what
        return f"{what}, found {_shown(value)}"
    wanted = [part for part in match["wanted"].split(" | ") if part != "null"]
    reason = f"expected {one_of([_NAMES.get(part, part) for part in wanted])}, "
    reason += f"found {_found(value, match['got'])}"
    return reason + _quotes(wanted, value)


def _quotes(wanted: list[str], value: Any) -> str:
    """How to correct the most common mistake in YAML: quotes that are missing, or too many."""
    if "str" in wanted and isinstance(value, bool | int | float):
        return "; put it in quotes"
    if wanted == ["int"] and isinstance(value, str) and _SHORT_NUMBER.fullmatch(value):
        return "; write it without quotes"
    return ""


def _found(value: Any, got: str) -> str:
    return (
        _NAMES.get(got, got) if value is None or isinstance(value, dict | list) else _shown(value)
    )


def _shown(value: Any) -> str:
    if isinstance(value, str):
        text = value if len(value) <= 60 else value[:57] + "..."
        return f'"{text}"' if text.isprintable() else ascii(text)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "nothing" if value is None else str(value)


def _type_at(kind: type[Any], parts: Parts) -> inspect.Type | None:
    found: inspect.Type | None = inspect.type_info(kind)
    for part in parts:
        found = _inside(_plain(found), part)
    return _plain(found)


def _plain(kind: inspect.Type | None) -> inspect.Type | None:
    """The type of a field without null."""
    if isinstance(kind, inspect.UnionType):
        others = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
        return others[0] if len(others) == 1 else kind
    return kind


def _inside(kind: inspect.Type | None, part: str | int) -> inspect.Type | None:
    if isinstance(kind, inspect.StructType):
        return next((f.type for f in kind.fields if f.encode_name == part), None)
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return kind.item_type
    return kind.value_type if isinstance(kind, inspect.DictType) else None


def _fields_at(kind: type[Any], parts: Parts) -> list[str]:
    found = _type_at(kind, parts)
    if not isinstance(found, inspect.StructType):
        return []
    return [field.encode_name for field in found.fields]


def _choices_at(kind: type[Any], parts: Parts) -> list[str]:
    """The values that a field may have, where there is a list of them."""
    found = _type_at(kind, parts)
    if isinstance(found, inspect.EnumType):
        return [str(each.value) for each in found.cls]
    if isinstance(found, inspect.UnionType):
        literals = [each for each in found.types if isinstance(each, inspect.LiteralType)]
    else:
        literals = [found] if isinstance(found, inspect.LiteralType) else []
    values = [value for each in literals for value in each.values if value != ""]
    return sorted(str(value) for value in values)
