"""The objects of the fake API server: one version counter for all, and a window of history."""

from __future__ import annotations

import copy
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from tests.fake_api.defaults import Allocator, keep_assigned, set_defaults
from tests.fake_api.kinds import Kind
from tests.fake_api.selectors import Match

Data = dict[str, Any]
Name = tuple[str, str]
"""Namespace ("" where there is none) and name."""


class ApiError(Exception):
    """An answer other than success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason

    def status(self) -> Data:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }


GONE = ApiError(410, "Expired", "too old resource version")


class Item(NamedTuple):
    """One version of an object."""

    data: Data
    raw: bytes
    """The same as JSON."""


class Change(NamedTuple):
    """An entry of the history."""

    version: int
    kind: Kind
    old: Item | None
    new: Item | None
    """None: deleted; `old` then has the version of the deletion."""

    def seen_by(self, match: Match) -> tuple[str, Item] | None:
        """The event for a watch with this selection, if it concerns it."""
        before = self.old is not None and match(self.old.data)
        after = self.new is not None and match(self.new.data)
        if after:
            assert self.new is not None
            return ("MODIFIED" if before else "ADDED"), self.new
        if before:
            assert self.old is not None
            gone = self.old if self.new is None else versioned(self.old.data, self.version)
            return "DELETED", gone
        return None


class Backup(NamedTuple):
    """All objects as they were at a version."""

    version: int
    kinds: Mapping[Kind, Mapping[Name, Item]]


class Store:
    """All objects. Not for several threads."""

    def __init__(self, history: int = 1000) -> None:
        self.version = 100
        self._kinds: dict[Kind, dict[Name, Item]] = {}
        self._history: deque[Change] = deque(maxlen=history)
        self._allocator = Allocator()
        self.missing: set[Kind] = set()
        """Custom resources whose definition is not installed."""
        self.on_change: list[Callable[[], None]] = []

    def items(self, kind: Kind) -> Mapping[Name, Item]:
        """Current objects, sorted by name."""
        found = self._kinds.get(kind, {})
        return {name: found[name] for name in sorted(found)}

    def get(self, kind: Kind, name: Name) -> Item:
        try:
            return self._kinds[kind][name]
        except KeyError:
            message = f'{kind.plural} "{name[1]}" not found'
            raise ApiError(404, "NotFound", message) from None

    def since(self, version: int) -> Iterator[Change]:
        """Changes after a version. Raises ApiError (410) where the history begins later."""
        oldest = self._history[0].version if self._history else self.version + 1
        if version + 1 < oldest:
            raise GONE
        for index in range(version + 1 - oldest, len(self._history)):
            yield self._history[index]

    def forget(self) -> None:
        """Drop the history, so that every earlier version is too old."""
        self._history.clear()
        self.version += 1

    def backup(self) -> Backup:
        """What `restore` takes."""
        return Backup(self.version, {kind: dict(items) for kind, items in self._kinds.items()})

    def restore(self, backup: Backup) -> None:
        """Go back to what was then, as etcd does; versions begin again where they were."""
        self.version = backup.version
        self._kinds = {kind: dict(items) for kind, items in backup.kinds.items()}
        self._history.clear()

    def scratch(self) -> Store:
        """The same objects, for what is to have no effect (dryRun)."""
        other = Store()
        other.restore(self.backup())
        other.missing = self.missing
        return other

    def create(self, kind: Kind, data: Data) -> Item:
        data = copy.deepcopy(data)
        metadata = data.setdefault("metadata", {})
        if not metadata.get("name"):
            metadata["name"] = metadata.pop("generateName", "") + uuid.uuid4().hex[:5]
        name = (metadata.get("namespace", "") if kind.namespaced else "", metadata["name"])
        if name in self._kinds.get(kind, {}):
            raise ApiError(409, "AlreadyExists", f'{kind.plural} "{name[1]}" already exists')
        metadata["uid"] = str(uuid.uuid4())
        metadata.pop("generation", None)
        if kind.counts_generations:
            metadata["generation"] = 1
        metadata.setdefault("creationTimestamp", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        return self._put(kind, name, data)

    def update(self, kind: Kind, name: Name, data: Data) -> Item:
        """Replace an object. Raises ApiError: not there, or the version is not the current one."""
        before = self.get(kind, name)
        data = copy.deepcopy(data)
        metadata = data.setdefault("metadata", {})
        current = before.data["metadata"]
        if metadata.get("resourceVersion") not in (None, "", current["resourceVersion"]):
            message = f'Operation cannot be fulfilled on {kind.plural} "{name[1]}": the object has'
            raise ApiError(409, "Conflict", f"{message} been modified")
        for field in ("name", "namespace", "uid", "creationTimestamp", "resourceVersion"):
            if field in current:
                metadata[field] = current[field]
        keep_assigned(data, before.data)
        data["apiVersion"], data["kind"] = kind.api_version, kind.kind
        set_defaults(kind, data, self._allocator)
        if kind.counts_generations:
            changed = _body(data) != _body(before.data)
            metadata["generation"] = current["generation"] + changed
        if data == before.data:
            return before
        return self._put(kind, name, data)

    def delete(self, kind: Kind, name: Name) -> Item:
        before = self.get(kind, name)
        del self._kinds[kind][name]
        self.version += 1
        last = versioned(before.data, self.version)
        self._note(Change(self.version, kind, last, None))
        self._collect(before.data["metadata"].get("uid"))
        return last

    def uninstall(self, *kinds: Kind) -> None:
        """Delete CustomResourceDefinitions, with all of their objects."""
        for kind in kinds:
            for name in list(self._kinds.get(kind, {})):
                self.delete(kind, name)
            self.missing.add(kind)

    def install(self, *kinds: Kind) -> None:
        """Create them again."""
        self.missing.difference_update(kinds)

    def apply(self, kind: Kind, data: Data) -> Item:
        """Create or replace, whatever the version."""
        metadata = data["metadata"]
        name = (metadata.get("namespace", "") if kind.namespaced else "", metadata["name"])
        if name in self._kinds.get(kind, {}):
            unversioned = {**data, "metadata": {**metadata, "resourceVersion": ""}}
            return self.update(kind, name, unversioned)
        return self.create(kind, data)

    def _collect(self, owner: str | None) -> None:
        """What the garbage collector does: objects go with their owner."""
        for kind, objects in list(self._kinds.items()):
            for name, item in list(objects.items()):
                owners = item.data["metadata"].get("ownerReferences") or ()
                if name in objects and owner in [each["uid"] for each in owners]:
                    self.delete(kind, name)

    def _put(self, kind: Kind, name: Name, data: Data) -> Item:
        data["apiVersion"], data["kind"] = kind.api_version, kind.kind
        set_defaults(kind, data, self._allocator)
        self.version += 1
        objects = self._kinds.setdefault(kind, {})
        before = objects.get(name)
        objects[name] = versioned(data, self.version)
        self._note(Change(self.version, kind, before, objects[name]))
        return objects[name]

    def _note(self, change: Change) -> None:
        # Versions in the history are contiguous: `since` counts on it.
        self._history.append(change)
        for each in self.on_change:
            each()


def _body(data: Data) -> Data:
    return {field: data[field] for field in data if field not in ("metadata", "status")}


def versioned(data: Data, version: int) -> Item:
    """The object with this resourceVersion."""
    metadata = {**data["metadata"], "resourceVersion": str(version)}
    data = {**data, "metadata": metadata}
    return Item(data, msgspec.json.encode(data))
