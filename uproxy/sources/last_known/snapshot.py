"""The last-known state of the cluster on disk, so that a node serves even if no API server answers.

It is a file of JSON lines: a header, the objects a hundred at a time, and a footer with a checksum.
Short lines matter, because a thread that encodes or decodes a line holds the interpreter's lock all
the while, and the event loop waits for it.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, NamedTuple

import msgspec

from uproxy.core.cluster.api_servers import api_server_addresses
from uproxy.core.cluster.objects import Endpoints, EndpointSlice, Node, Object, Service
from uproxy.sources.last_known.private_file import open_private, replace_private

FILE_NAME: Final = "last-known-state.jsonl"

_FORMAT: Final = "uproxy last-known state"
_VERSION: Final = 1
_MOST: Final = 1024 * 1024 * 1024
"""Bytes of a file: 20,000 Services and slices have 30 MiB."""
_LONGEST_LINE: Final = 256 * 1024 * 1024
"""Bytes. A longer line is read in two pieces, neither of which is JSON, so it counts as damaged. An
object in etcd has 1.5 MiB at most."""
_END_OF_TIME: Final = 253402300800.0
"""Seconds from 1970 to the year 10,000, which is too late for Python's datetime."""
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_AT_ONCE: Final = 100
"""Objects in a line. A line of slices with ten endpoints each takes about 2 ms to encode or
decode."""


class SnapshotError(Exception):
    """A file cannot be used; the message is one line that names it and says why."""


class Snapshot(NamedTuple):
    """What a node knows about its cluster at one moment."""

    node: str
    """Name of the node. Another node may not serve from this state: other endpoints are local to
    it."""
    saved_at: float
    """Seconds since the Unix epoch."""
    objects: Sequence[Object]


class _Header(msgspec.Struct, rename="camel"):
    format: str
    version: int
    node: str = ""
    saved_at: Annotated[float, msgspec.Meta(ge=0, lt=_END_OF_TIME)] = 0.0


class _Objects(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    services: tuple[Service, ...] = ()
    endpoint_slices: tuple[EndpointSlice, ...] = ()
    endpoints: tuple[Endpoints, ...] = ()
    nodes: tuple[Node, ...] = ()

    def all(self) -> Iterator[Object]:
        yield from self.services
        yield from self.endpoint_slices
        yield from self.endpoints
        yield from self.nodes


class _Footer(msgspec.Struct):
    objects: int
    sha256: str


_FIELDS: Final[dict[type[Object], str]] = {
    Service: "services",
    EndpointSlice: "endpoint_slices",
    Endpoints: "endpoints",
    Node: "nodes",
}


def save(path: Path, snapshot: Snapshot) -> None:
    """Replace the file by one with this content, or leave the old one as it is. Blocks; raises
    OSError."""
    with replace_private(path) as file:
        for line in _lines(snapshot):
            file.write(line)


def has_snapshot(directory: Path, node: str) -> bool:
    """Whether a directory holds a state of this node that can be served. Blocks."""
    try:
        return load(directory / FILE_NAME, node=node) is not None
    except SnapshotError:
        return False


def remembered_api_servers(directory: Path, node: str) -> tuple[str, ...]:
    """Where the API servers were, "HOST:PORT"; nothing if no state of this node can be read.
    Blocks."""
    try:
        known = load(directory / FILE_NAME, node=node)
    except SnapshotError:  # LastKnownFallback logs why.
        return ()
    return api_server_addresses(known.objects) if known is not None else ()


def load(path: Path, *, node: str) -> Snapshot | None:
    """What was saved for this node; None where there is no file. Blocks; raises SnapshotError."""
    try:
        with open_private(path, most=_MOST) as file:
            return _read(_lines_of(file), node)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise SnapshotError(f"{path}: cannot be read: {reason}") from error
    except SnapshotError as error:
        raise SnapshotError(f"{path}: {error}") from None
    except _UNREADABLE:
        raise SnapshotError(f"{path}: damaged") from None
    except ValueError:
        raise SnapshotError("the path of the state directory is not a valid file name") from None


def rfc3339(wall: float) -> str:
    """A time for people to read, to the second."""
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _lines(snapshot: Snapshot) -> Iterator[bytes]:
    encoder, digest = msgspec.json.Encoder(), hashlib.sha256()
    for part in _parts(snapshot):
        line = encoder.encode(part) + b"\n"
        digest.update(line)
        yield line
    yield encoder.encode(_Footer(len(snapshot.objects), digest.hexdigest())) + b"\n"


def _parts(snapshot: Snapshot) -> Iterator[_Header | _Objects]:
    yield _Header(_FORMAT, _VERSION, snapshot.node, snapshot.saved_at)
    for kind, field in _FIELDS.items():
        same: list[Any] = [obj for obj in snapshot.objects if type(obj) is kind]
        for start in range(0, len(same), _AT_ONCE):
            yield _Objects(**{field: tuple(same[start : start + _AT_ONCE])})


def _read(lines: Iterable[bytes], node: str) -> Snapshot:
    content = iter(lines)
    first = next(content, b"")
    header = _header(first, node)
    digest, objects = hashlib.sha256(first), list[Object]()
    decoder = msgspec.json.Decoder(_Objects)
    # One line behind, because only the end of the file shows which line is the footer.
    last = b""
    for line in content:
        if last:
            digest.update(last)
            objects.extend(decoder.decode(last).all())
        last = line
    if not last.endswith(b"\n"):
        raise SnapshotError("truncated")
    footer = msgspec.json.decode(last, type=_Footer)
    if (footer.objects, footer.sha256) != (len(objects), digest.hexdigest()):
        raise SnapshotError("damaged: its checksum does not match")
    return Snapshot(header.node, header.saved_at, objects)


def _header(line: bytes, node: str) -> _Header:
    try:
        header = msgspec.json.decode(line, type=_Header)
    except _UNREADABLE:
        raise SnapshotError("not a state file of uproxy") from None
    if header.format != _FORMAT:
        raise SnapshotError("not a state file of uproxy")
    if header.version != _VERSION:
        reason = f"its format is {header.version}; this version of uproxy reads {_VERSION}"
        raise SnapshotError(reason)
    if header.node != node:
        raise SnapshotError(f'it is of node "{header.node}", but this node is "{node}"')
    return header


def _lines_of(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(_LONGEST_LINE):
        yield line
