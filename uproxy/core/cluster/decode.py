"""From the API's JSON, or from data read from YAML, to objects, or to an error."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from uproxy.core.cluster.objects import ApiObject, Endpoints, EndpointSlice, Node, Object, Service

_KINDS: Final[dict[tuple[str, str], type[Object]]] = {
    ("v1", "Service"): Service,
    ("v1", "Endpoints"): Endpoints,
    ("v1", "Node"): Node,
    ("discovery.k8s.io/v1", "EndpointSlice"): EndpointSlice,
}
T = TypeVar("T", bound=ApiObject)

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)


class DecodeError(ValueError):
    """An object cannot be used. The error names the field that is wrong."""

    def __init__(self, what: str, path: str = "") -> None:
        super().__init__(f"{path}: {what}" if path else what)
        self.what = what
        self.path = path
        """Dotted, such as "spec.ports[0].port"; "" for the object as a whole."""


def kind_of(document: Any) -> type[Object] | None:
    """The class for a document's apiVersion and kind; None for kinds that uproxy does not use.

    Raises DecodeError if either is missing.
    """
    if not isinstance(document, dict):
        raise DecodeError(f"expected an object, found {_describe(document)}")
    for field in ("apiVersion", "kind"):
        if not isinstance(document.get(field), str):
            raise DecodeError("a string is required", field)
    return _KINDS.get((document["apiVersion"], document["kind"]))


def from_data(document: Any, kind: type[Object]) -> Object:
    """Turn plain data, as a YAML reader returns it, into an object.

    Raises DecodeError with the path of the field that is wrong.
    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise explain(error) from None


def from_json(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Turn JSON into an object. Raises DecodeError."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise explain(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not JSON: {error}") from None


def explain(error: msgspec.ValidationError) -> DecodeError:
    """The message of msgspec, divided into what is wrong and where, in the API's field names."""
    match = _AT.match(str(error))
    assert match is not None
    path = (match["path"] or "").removeprefix("$").removeprefix(".")
    what = match["what"].replace("`", "").strip()
    return DecodeError(what[:1].lower() + what[1:], path)


def _describe(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 64:
        return "a very large number"
    return {type(None): "nothing", list: "a list", str: "text"}.get(type(value), repr(value))
