"""What `fieldValidation=Strict` makes of an object: fields that there are none of, wrong types, and
fields that are missing.

The types are those that kubernetes_asyncio was generated with, from the API's own description.
Custom resources have none here, and are accepted as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, Final

from tests.fake_api.store import ApiError

_PLAIN: Final[dict[str, tuple[type, ...]]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
}
_MISSING: Final = ": Required value"


def check_fields(data: dict[str, Any]) -> None:
    """Raises ApiError for what a real server refuses, in its words."""
    kind = _type_of(data)
    faults = list(_object(kind.__name__, data, "")) if kind is not None else []
    if all(each.endswith(_MISSING) for each in faults):
        if faults:
            raise ApiError(422, "Invalid", f"{data['kind']} is invalid: {', '.join(faults)}")
        return
    message = f"{data['kind']} in version {data['apiVersion']} cannot be handled"
    raise ApiError(400, "BadRequest", f"{message}: strict decoding error: {', '.join(faults)}")


def _type_of(data: dict[str, Any]) -> type | None:
    group, _, version = f"/{data['apiVersion']}".rpartition("/")
    name = f"{version.capitalize()}{data['kind']}"
    if data["kind"] == "Event":
        name = f"{'Events' if group else 'Core'}{name}"
    found: type | None = getattr(_models(), name, None)
    return found


@cache
def _models() -> ModuleType:
    # Loading them all takes seconds.
    from kubernetes_asyncio.client import models

    return models


def _object(name: str, data: Any, path: str) -> Iterator[str]:
    if not isinstance(data, dict):
        yield f"{path.removesuffix('.')}: expected an object, got {data!r}"
        return
    model = getattr(_models(), name)
    types = {json: model.openapi_types[own] for own, json in model.attribute_map.items()}
    for field, value in data.items():
        if field not in types:
            yield f'unknown field "{path}{field}"'
        elif value is not None:
            yield from _value(types[field], value, f"{path}{field}")
    given = {own: True for own, json in model.attribute_map.items() if data.get(json) is not None}
    try:
        model(**given)
    except ValueError as error:
        # Invalid value for `selector`, must not be `None`
        missing = re.findall("`(.+?)`", str(error))[0]
        yield f"{path}{model.attribute_map.get(missing, missing)}{_MISSING}"


def _value(kind: str, value: Any, path: str) -> Iterator[str]:
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{path}: expected a list, got {value!r}"
            return
        for index, each in enumerate(value):
            yield from _value(found[1], each, f"{path}[{index}]")
    elif found := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            yield f"{path}: expected a map, got {value!r}"
            return
        for name, each in value.items():
            yield from _value(found[1], each, f"{path}.{name}")
    elif kind in _PLAIN:
        wrong = not isinstance(value, _PLAIN[kind]) or (kind != "bool" and isinstance(value, bool))
        if wrong:
            yield f"{path}: expected {kind}, got {value!r}"
    elif hasattr(_models(), kind):
        yield from _object(kind, value, f"{path}.")
