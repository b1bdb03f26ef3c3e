"""Secrets in protobuf, which is how helm writes down what it has installed.

The numbers of fields are those of k8s.io/api/core/v1/generated.proto and of
k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final

CONTENT_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
_LENGTH_DELIMITED: Final = 2


def secret(body: bytes) -> dict[str, Any]:
    """A Secret as JSON would have it. Raises ValueError for anything else."""
    if not body.startswith(_MAGIC):
        raise ValueError("this is not protobuf of Kubernetes")
    envelope = dict(_fields(body.removeprefix(_MAGIC)))
    kind = dict(_fields(envelope[1]))
    if kind[2] != b"Secret":
        raise ValueError(f"only Secrets are understood in protobuf, not {kind[2]!r}")
    fields = list(_fields(envelope[2]))
    return {
        "apiVersion": kind[1].decode(),
        "kind": "Secret",
        "metadata": _metadata(dict(fields)[1]),
        "data": {
            name.decode(): base64.b64encode(value).decode()
            for name, value in (_entry(each) for number, each in fields if number == 2)
        },
        "type": dict(fields)[3].decode(),
    }


def _metadata(message: bytes) -> dict[str, Any]:
    fields = list(_fields(message))
    texts = dict(fields)
    labels = (_entry(each) for number, each in fields if number == 11)
    found: dict[str, Any] = {
        "name": texts[1].decode(),
        "labels": {name.decode(): value.decode() for name, value in labels},
    }
    if texts.get(6):
        found["resourceVersion"] = texts[6].decode()
    return found


def _entry(message: bytes) -> tuple[bytes, bytes]:
    """An entry of a map."""
    fields = dict(_fields(message))
    return fields[1], fields.get(2, b"")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields that are texts, bytes or messages; numbers are left out."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == _LENGTH_DELIMITED:
            length, at = _varint(message, at)
            yield tag >> 3, message[at : at + length]
            at += length
        elif tag & 7 == 0:
            _, at = _varint(message, at)
        else:
            raise ValueError(f"wire type {tag & 7} is not expected")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
