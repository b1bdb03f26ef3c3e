"""The objects of all manifests together: which file wins where two define the same object, and what
has changed."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from heapq import nsmallest
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.report.findings import Finding, Place, Severity
from uproxy.core.report.status import ObjectStatus
from uproxy.core.report.unusable_objects import MOST, first_few
from uproxy.sources.manifests.file import FileContent, Key, Located, file_error
from uproxy.text.files import printable_name

S = TypeVar("S")


_BLANK: Final = (
    "it has become empty, as while something writes it; what it had is served until there is "
    "something in it, or the file is removed"
)
"""A shell empties a file before it starts the program that is to write it, which may take seconds:
kubectl get services,endpointslices --all-namespaces --output=yaml > FILE"""


class Change(NamedTuple):
    """An object to apply; or, where `obj` is None, a key to remove."""

    key: Key
    obj: Object | None


class _File(NamedTuple):
    objects: Mapping[Key, Located]
    errors: tuple[ObjectStatus, ...]
    warnings: tuple[Finding, ...]
    proven: bool
    """Whether `objects` come from a version of the file that had no errors."""


def difference(before: Mapping[str, S], after: Mapping[str, S]) -> tuple[list[str], list[str]]:
    """The files to read, because they are new or different, and the files that are gone."""
    to_read = [path for path, stamp in after.items() if before.get(path) != stamp]
    return to_read, [path for path in before if path not in after]


def as_finding(path: str, error: ObjectStatus) -> Finding:
    """What is wrong in a file, with its line apart."""
    name = printable_name(path)
    line = error.where.removeprefix(f"{name}:")
    return Finding(
        severity=Severity.ERROR,
        file=name,
        line=int(line) if line.isdecimal() else 0,
        field=error.field,
        reason=error.reason,
    )


class Catalog:
    """All files. Where two define the same object, the first one in sorted order wins, so the
    result does not depend on which was read first.

    When a file without errors gets one, what it said before stays in force until the error is
    corrected: half of an edit must not remove Services. A file that has had errors from the start
    contributes what can be read of it.
    """

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._holders: dict[Key, list[str]] = {}
        """The files that define a key, sorted. The first one counts."""
        self._contested: set[Key] = set()
        self._with_errors: set[str] = set()
        self._with_warnings: set[str] = set()

    def objects(self) -> list[Object]:
        """All objects, each once, in no particular order."""
        return [obj for key in self._holders if (obj := self._winner(key)) is not None]

    def errors(self) -> list[ObjectStatus]:
        """What is wrong at present, by file: the first few errors, and how many more there
        are."""
        total = sum(len(self._files[path].errors) for path in self._with_errors)
        total += sum(len(self._holders[key]) - 1 for key in self._contested)
        paths = nsmallest(MOST, self._with_errors)
        found = [(path, each) for path in paths for each in self._files[path].errors]
        contested = islice(self._contested, MOST)
        found += [entry for key in contested for entry in islice(self._losers(key), MOST)]
        found.sort(key=lambda entry: entry[0])
        return first_few((each for _, each in found), total, "files")

    def warnings(self) -> list[Finding]:
        """What is odd at present, by file: the first few findings."""
        paths = nsmallest(MOST, self._with_warnings)
        return list(islice((each for path in paths for each in self._files[path].warnings), MOST))

    def findings(self) -> Iterator[Finding]:
        """All that is wrong or odd, by file."""
        contested: dict[str, list[ObjectStatus]] = {}
        for key in self._contested:
            for path, status in self._losers(key):
                contested.setdefault(path, []).append(status)
        for path in sorted(self._files):
            file = self._files[path]
            for status in (*file.errors, *contested.get(path, ())):
                yield as_finding(path, status)
            yield from file.warnings

    def locate(self, kind: type[Object], name: ObjectName, field: str) -> Place:
        """See uproxy.core.report.findings.Locate. It may be called while another thread updates."""
        key = Key(kind, name)
        try:
            path, *_ = self._holders[key]
            located = self._files[path].objects[key]
        except (KeyError, ValueError):
            return Place()
        return Place(printable_name(path), located.lines.get(field, located.line))

    def update(self, readings: Mapping[str, FileContent | None]) -> list[Change]:
        """Take over the new content of files; None: the file is gone.

        Returns only what changes for the sink: an object that moves from one file to another is no
        change.
        """
        files = {path: self._succeed(path, reading) for path, reading in readings.items()}
        keys: dict[Key, None] = {}
        for path, after in files.items():
            keys.update(dict.fromkeys(self._keys(self._files.get(path))))
            keys.update(dict.fromkeys(self._keys(after)))
        before = {key: self._winner(key) for key in keys}
        for path, after in files.items():
            self._set(path, after)
        after_all = ((key, self._winner(key)) for key in keys)
        return [Change(key, obj) for key, obj in after_all if obj != before[key]]

    def _succeed(self, path: str, reading: FileContent | None) -> _File | None:
        if reading is None:
            return None
        before = self._files.get(path)
        errors = reading.errors
        if reading.blank and before is not None and before.objects:
            errors = (file_error(path, 0, "", _BLANK),)
        if errors and before is not None and before.proven:
            return before._replace(errors=errors)
        return _File(reading.objects, reading.errors, reading.warnings, not reading.errors)

    def _set(self, path: str, after: _File | None) -> None:
        for key in self._keys(self._files.pop(path, None)):
            self._release(key, path)
        self._with_errors.discard(path)
        self._with_warnings.discard(path)
        if after is None:
            return
        self._files[path] = after
        for key in after.objects:
            self._hold(key, path)
        if after.errors:
            self._with_errors.add(path)
        if after.warnings:
            self._with_warnings.add(path)

    def _hold(self, key: Key, path: str) -> None:
        holders = self._holders.setdefault(key, [])
        insort(holders, path)
        if len(holders) > 1:
            self._contested.add(key)

    def _release(self, key: Key, path: str) -> None:
        holders = self._holders[key]
        del holders[bisect_left(holders, path)]
        if len(holders) < 2:
            self._contested.discard(key)
        if not holders:
            del self._holders[key]

    @staticmethod
    def _keys(file: _File | None) -> Iterable[Key]:
        return file.objects if file is not None else ()

    def _winner(self, key: Key) -> Object | None:
        holders = self._holders.get(key)
        return self._files[holders[0]].objects[key].obj if holders else None

    def _losers(self, key: Key) -> Iterator[tuple[str, ObjectStatus]]:
        first, *others = self._holders[key]
        place = f"{printable_name(first)}:{self._files[first].objects[key].line}"
        for path in others:
            line = self._files[path].objects[key].line
            reason = f"{key} is already defined in {place}; remove one of them"
            yield path, file_error(path, line, "metadata.name", reason)
