"""The objects of one resource, as far as the server has sent them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from uproxy.core.brief import brief
from uproxy.core.cluster.decode import DecodeError, from_json
from uproxy.core.cluster.objects import ApiObject, ObjectName
from uproxy.core.report.status import ObjectStatus
from uproxy.core.report.unusable_objects import MOST, first_few
from uproxy.sources.kubernetes.watch_format import MalformedAnswer, Metadata, metadata_of

_MOST_OBJECTS: Final = 500_000
"""Of one kind; clusters of 5,000 nodes and 150,000 pods have a tenth of it."""
_MAX_TOMBSTONES: Final = 10_000
_MAX_VERSION: Final = 256
"""Characters of a resourceVersion, which is sent in a URL; etcd's have 19 at most."""


T = TypeVar("T", bound=ApiObject)


class Deleted(NamedTuple):
    """An object was deleted."""

    name: ObjectName


class ListResult(NamedTuple, Generic[T]):
    """A complete list."""

    objects: Sequence[T]
    """All objects that exist."""
    changed: Sequence[T]
    """The objects that are new, or differ from what was known before the list."""


class Mirror(Generic[T]):
    """The objects of one resource, kept up to date by lists and by the events of watches.

    An object that cannot be decoded becomes an error, and its last good version stays.
    """

    def __init__(self, kind: type[T], reduce: Callable[[T], T] | None = None) -> None:
        self._kind = kind
        self._reduce = reduce
        self._objects: dict[ObjectName, T] = {}
        self._errors: dict[ObjectName, ObjectStatus] = {}
        self._summary: tuple[ObjectStatus, ...] | None = ()
        """The errors as they were reported last; None: they have changed since."""
        self._tombstones: dict[ObjectName, str] = {}
        """The version at which an object was deleted, so that an event from before the deletion
        does not bring the object back."""
        self._listing: dict[ObjectName, T] = {}
        self._listed_errors: dict[ObjectName, ObjectStatus] = {}
        self.version = ""
        """The resourceVersion from which a watch can be resumed without missing anything; "": there
        is none, and everything has to be listed."""

    @property
    def errors(self) -> tuple[ObjectStatus, ...]:
        """The first errors by name, and how many more there are. They are asked for after each
        event, so thousands must not be sorted each time."""
        if self._summary is None:
            known = self._errors
            names = sorted(islice(known, MOST))
            found = (known[name] for name in names)
            self._summary = tuple(first_few(found, len(known), f"{self._kind.__name__}s"))
        return self._summary

    @property
    def count(self) -> int:
        """How many objects are known, usable or not."""
        return len(self._objects) + len(self._errors)

    def clear(self) -> None:
        """There are no objects, and no version from which a watch could be resumed."""
        self._objects, self._errors, self._summary = {}, {}, None
        self._tombstones.clear()
        self.version = ""
        self.begin_list()

    def begin_list(self) -> None:
        """A list begins. Until `finish_list` the objects known so far remain in force, because a
        list that is cut off says nothing about the objects that it did not reach."""
        self._listing, self._listed_errors = {}, {}

    def add_listed(self, raw: msgspec.Raw) -> None:
        """An object of the list. Raises MalformedAnswer where there are too many."""
        if len(self._listing) + len(self._listed_errors) >= _MOST_OBJECTS:
            raise MalformedAnswer(f"a list has more than {_MOST_OBJECTS:,} objects")
        obj = self._decode(raw, self._listed_errors)
        if isinstance(obj, ObjectName):
            if obj in self._objects:
                self._listing[obj] = self._objects[obj]
        elif obj is not None:
            # An equal object that is known already is kept: the state holds it too, and one copy
            # in memory is enough.
            known = self._objects.get(obj.key)
            self._listing[obj.key] = known if known is not None and known == obj else obj

    def drop_listed(self, raw: msgspec.Raw) -> None:
        """An object was deleted while the list was being sent."""
        if (metadata := metadata_of(raw)) is not None:
            name = ObjectName(metadata.namespace, metadata.name)
            self._listing.pop(name, None)
            self._listed_errors.pop(name, None)

    def finish_list(self, version: str) -> ListResult[T]:
        """The list is complete as of this version. Raises MalformedAnswer where no watch could
        begin at it."""
        if not 0 < len(version) <= _MAX_VERSION:
            raise MalformedAnswer("a list has no usable resourceVersion")
        before, self._objects = self._objects, self._listing
        self._errors, self._summary = self._listed_errors, None
        # A list is the whole truth as of its version, and may be older than what was known: a
        # server that was restored from a backup begins again at smaller versions.
        self._tombstones.clear()
        self.begin_list()
        self.version = version
        objects = list(self._objects.values())
        return ListResult(objects, [each for each in objects if before.get(each.key) is not each])

    def apply_change(self, raw: msgspec.Raw) -> T | None:
        """An object was added or modified. Returns None where nothing is to be done, because the
        event is older than what is known, or the object unusable.

        Raises MalformedAnswer if the object has no usable name.
        """
        errors: dict[ObjectName, ObjectStatus] = {}
        obj = self._decode(raw, errors)
        if obj is None:
            raise MalformedAnswer("a watch sent an object without a name")
        if errors:
            self._errors |= errors
            self._summary = None
        if isinstance(obj, ObjectName):
            self._advance(metadata_of(raw))
            return None
        version = obj.metadata.resource_version
        self._set_version(version)
        known = self._objects.get(obj.key)
        before = known.metadata.resource_version if known else self._tombstones.get(obj.key, "")
        if not _newer(version, before):
            return None
        self._objects[obj.key] = obj
        self._drop_error(obj.key)
        self._tombstones.pop(obj.key, None)
        if self._reduce is not None and known is not None and _same_but_version(known, obj):
            return None
        return obj

    def apply_deletion(self, raw: msgspec.Raw) -> Deleted | None:
        """An object was deleted; the event has its last state, with the version of the deletion.
        Returns None where nothing is to be done. Raises MalformedAnswer as above."""
        metadata = metadata_of(raw)
        if metadata is None or not metadata.name:
            raise MalformedAnswer("a watch sent an object without a name")
        name = ObjectName(metadata.namespace, metadata.name)
        self._advance(metadata)
        known = self._objects.get(name)
        if known is not None and _newer(known.metadata.resource_version, metadata.resource_version):
            return None
        self._add_tombstone(name, metadata.resource_version)
        self._drop_error(name)
        return Deleted(name) if self._objects.pop(name, None) is not None else None

    def apply_bookmark(self, raw: msgspec.Raw) -> Metadata | None:
        """Every change up to a version has been sent. A watch that is resumed there is not refused
        with 410 although this resource has not changed for hours. Returns the bookmark's metadata,
        whose annotations may say more."""
        metadata = metadata_of(raw)
        self._advance(metadata)
        return metadata

    def _decode(
        self, raw: msgspec.Raw, errors: dict[ObjectName, ObjectStatus]
    ) -> T | ObjectName | None:
        """The object, or the name of one that cannot be used, or None where it has no name."""
        try:
            obj = from_json(raw, self._kind)
            return obj if self._reduce is None else self._reduce(obj)
        except DecodeError as error:
            metadata = metadata_of(raw) or Metadata()
            name = ObjectName(metadata.namespace, metadata.name)
            where = f"{self._kind.__name__} {name if metadata.name else '(without a name)'}"
            errors[name] = ObjectStatus(
                where=brief(where), field=brief(error.path), reason=brief(error.what)
            )
            return name if metadata.name else None

    def _drop_error(self, name: ObjectName) -> None:
        if self._errors.pop(name, None) is not None:
            self._summary = None

    def _add_tombstone(self, name: ObjectName, version: str) -> None:
        self._tombstones[name] = version
        if len(self._tombstones) > _MAX_TOMBSTONES:
            del self._tombstones[next(iter(self._tombstones))]

    def _advance(self, metadata: Metadata | None) -> None:
        if metadata is not None:
            self._set_version(metadata.resource_version)

    def _set_version(self, version: str) -> None:
        # Without a complete list there is nothing that a watch could be resumed from: a version
        # that comes earlier must not make it look as if there were.
        if self.version and len(version) <= _MAX_VERSION and _newer(version, self.version):
            self.version = version


def _same_but_version(one: ApiObject, other: ApiObject) -> bool:
    version = other.metadata.resource_version
    metadata = msgspec.structs.replace(one.metadata, resource_version=version)
    return msgspec.structs.replace(one, metadata=metadata) == other


def _newer(version: str, than: str) -> bool:
    """Whether a resourceVersion is later than another. Every server that exists numbers them, and
    since Kubernetes 1.35 clients may compare the numbers (KEP-5504). Versions that are not numbers
    are only tested for being different."""
    if version.isdecimal() and than.isdecimal():
        # They are not converted: int() refuses text of more than 4,300 digits.
        first, second = version.lstrip("0"), than.lstrip("0")
        return (len(first), first) > (len(second), second)
    return bool(version) and version != than
