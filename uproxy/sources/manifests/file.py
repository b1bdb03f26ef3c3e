"""From the text of a manifest to the objects in it and the errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from uproxy.core.brief import brief, brief_name
from uproxy.core.cluster.api_kinds import misspelt
from uproxy.core.cluster.decode import DecodeError, from_data, kind_of
from uproxy.core.cluster.objects import Node, Object, ObjectName, Service
from uproxy.core.cluster.own_annotations import PREFIX
from uproxy.core.report.findings import Finding, Severity, finding
from uproxy.core.report.status import ObjectStatus
from uproxy.sources.manifests.spelling import MOST, spelling
from uproxy.text.advice import advise
from uproxy.text.document import Document, Malformed, Parts, decode_text, join_parts
from uproxy.text.files import printable_name
from uproxy.text.json_text import json_documents
from uproxy.text.yaml_text import yaml_documents

MAX_FILE = 64 * 1024 * 1024
"""Bytes. The API server accepts objects of 1.5 MiB at most; this has room for a long List."""
_MAX_ERRORS = 100
"""For each file. A text that is not a manifest at all can have an error in every line."""
_MAX_LISTS = 10
"""Lists within Lists."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""An RFC 1123 subdomain, which the API server requires of names."""


class Key(NamedTuple):
    """Identity of an object."""

    kind: type[Object]
    name: ObjectName

    def __str__(self) -> str:
        return f"{self.kind.__name__} {self.name}"


class Located(NamedTuple):
    """An object and the line where it starts."""

    obj: Object
    line: int
    lines: Mapping[str, int] = {}
    """The lines of those fields of a Service that findings may be about."""


class FileContent(NamedTuple):
    """What one file contains."""

    objects: Mapping[Key, Located] = {}
    errors: tuple[ObjectStatus, ...] = ()
    ignored: int = 0
    """How many objects were ignored, because a proxy does not need their kinds."""
    warnings: tuple[Finding, ...] = ()
    """What is odd, but can be used."""
    readable: bool = True
    """Whether its text could be read, whatever is in it."""
    blank: bool = False
    """Whether there is nothing in it, not even a comment."""


class _Item(NamedTuple):
    """The data of an object, and where it is in its document, which may be a List."""

    data: Any
    prefix: Parts
    document: Document


def read_manifest(path: str, raw: bytes) -> FileContent:
    """Decode a file: JSON if `path` ends in ".json", else YAML. The file itself is not accessed."""
    if len(raw) > MAX_FILE:
        return unreadable(path, f"larger than {MAX_FILE >> 20} MiB; split it into several files")
    try:
        text = decode_text(raw)
    except Malformed as error:
        return FileContent(errors=(_malformed(path, error),))
    documents = json_documents if path.endswith(".json") else yaml_documents
    reader = _Reader(path)
    for document in documents(text):
        if isinstance(document, Malformed):
            reader.malformed(document)
        elif document.data is not None:
            reader.take(document)
    return reader.reading()._replace(blank=not raw.strip())


def unreadable(path: str, reason: str) -> FileContent:
    """The content of a file whose text cannot be read."""
    return FileContent(errors=(file_error(path, 0, "", reason),), readable=False)


def file_error(path: str, line: int, field: str, reason: str) -> ObjectStatus:
    where = f"{printable_name(path)}:{line}" if line else printable_name(path)
    return ObjectStatus(where=where, field=brief(field), reason=brief(reason))


def _malformed(path: str, error: Malformed) -> ObjectStatus:
    column = f" (column {error.column})" if error.column else ""
    return file_error(path, error.line, "", error.reason + column)


class _Reader:
    """Collects what the documents of one file say."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._objects: dict[Key, Located] = {}
        self._ignored = 0
        self._errors: list[ObjectStatus] = []
        self._warnings: list[Finding] = []
        self._more = 0
        """Errors that are only counted, because to formulate an error takes most of the time."""

    def take(self, document: Document) -> None:
        for item in _items(document.data, (), document):
            self._decode(item)

    def reading(self) -> FileContent:
        errors = self._errors
        if self._more:
            last = file_error(self._path, 0, "", f"{self._more} more errors in this file")
            errors = [*errors, last]
        warnings = self._warnings
        if not (self._objects or errors or self._ignored):
            name = printable_name(self._path)
            warnings = [finding(Severity.WARNING, "there is no object in it", file=name)]
        return FileContent(self._objects, tuple(errors), self._ignored, tuple(warnings))

    def malformed(self, error: Malformed) -> None:
        if self._room():
            self._errors.append(_malformed(self._path, error))

    def _room(self) -> bool:
        """Whether there is room for one more error. If not, it is counted."""
        room = len(self._errors) < _MAX_ERRORS
        self._more += not room
        return room

    def _decode(self, item: _Item) -> None:
        if room := MOST - len(self._warnings):
            self._warnings += islice(spelling(self._path, *item), room)
        try:
            kind = _kind_of(item.data)
        except DecodeError as error:
            if self._room():
                parts = (error.path,) if error.path else ()
                self._add_error(item.document, item.prefix + parts, error.what)
            return
        if kind is None:
            self._ignored += 1
            return
        try:
            obj = _named(from_data(item.data, kind))
        except DecodeError as error:
            if self._room():
                field, reason = advise(error, item.data, kind)
                self._add_error(item.document, item.prefix + field, reason)
            return
        self._add(Key(kind, obj.key), obj, item)

    def _add(self, key: Key, obj: Object, item: _Item) -> None:
        if key not in self._objects:
            line = item.document.locate(item.prefix)
            self._objects[key] = Located(obj, line, dict(_lines(obj, item)))
        elif self._room():
            first = self._objects[key].line
            reason = f"{key} is already defined in line {first}; remove one of them"
            self._add_error(item.document, (*item.prefix, "metadata", "name"), reason)

    def _add_error(self, document: Document, parts: Parts, reason: str) -> None:
        line = document.locate(parts)
        self._errors.append(file_error(self._path, line, join_parts(parts), reason))


def _items(data: Any, prefix: Parts, document: Document) -> Iterator[_Item]:
    """The document itself, or the items of a List, which may be Lists again."""
    kind = data.get("kind") if isinstance(data, dict) else None
    items = data.get("items") if isinstance(kind, str) and kind.endswith("List") else None
    if not isinstance(items, list) or len(prefix) > _MAX_LISTS * 2:
        yield _Item(data, prefix, document)
        return
    typed = {"apiVersion": data.get("apiVersion"), "kind": str(kind).removesuffix("List")}
    for index, each in enumerate(items):
        if isinstance(each, dict) and typed["kind"]:
            # Items of a ServiceList have no kind of their own when the API server writes them.
            each = {**typed, **each}
        yield from _items(each, (*prefix, "items", index), document)


def _lines(obj: Object, item: _Item) -> Iterator[tuple[str, int]]:
    if not isinstance(obj, Service):
        return
    fields: list[Parts] = [("spec", "ports", index) for index in range(len(obj.ports))]
    if obj.spec.health_check_node_port:
        fields.append(("spec", "healthCheckNodePort"))
    names = obj.metadata.annotations or ()
    fields += [("metadata", "annotations", name) for name in names if name.startswith(PREFIX)]
    for field in fields:
        yield join_parts(field), item.document.locate((*item.prefix, *field))


def _kind_of(data: Any) -> type[Object] | None:
    kind = kind_of(data)
    odd = misspelt(data["apiVersion"], data["kind"]) if kind is None else None
    if odd is not None and odd.is_used:
        raise DecodeError(odd.reason, odd.field)
    return kind


def _named(obj: Object) -> Object:
    """Check the name, and fill the namespace in as `kubectl` does."""
    metadata = obj.metadata
    for field, value in (("name", metadata.name), ("namespace", metadata.namespace or "default")):
        if not _NAME.fullmatch(value):
            name = printable_name(brief_name(value))
            reason = f'"{name}" is not a name of lower-case letters, digits, "-" and "."'
            raise DecodeError(reason, f"metadata.{field}")
    if isinstance(obj, Node):
        return obj
    if metadata.namespace:
        return obj
    metadata = msgspec.structs.replace(metadata, namespace="default")
    return msgspec.structs.replace(obj, metadata=metadata)
