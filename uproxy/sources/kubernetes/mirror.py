"""What decides about following one resource of the API: which objects count, and what to do when
something goes wrong. Pure; `uproxy.sources.kubernetes.source` asks the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from uproxy.core.brief import brief
from uproxy.core.cluster.decode import DecodeError, from_json
from uproxy.core.cluster.objects import EndpointSlice, Node, Object, ObjectMeta, ObjectName, Service
from uproxy.core.report.status import ObjectStatus
from uproxy.core.report.unusable_objects import MOST, first_few
from uproxy.sources.kubernetes.watch_format import Failure, MalformedAnswer, Metadata, metadata_of

SERVICES: Final = "services"
SLICES: Final = "endpointslices"
NODE: Final = "node"
SOURCES: Final = (SERVICES, SLICES, NODE)
"""Names under which the Kubernetes API delivers: nothing is taken away before all have listed."""

_PROXY_NAME: Final = "service.kubernetes.io/service-proxy-name"
_MOST_OBJECTS: Final = 500_000
"""Of one kind; clusters of 5,000 nodes and 150,000 pods have a tenth of it."""
_MAX_TOMBSTONES: Final = 10_000
_MAX_VERSION: Final = 256
"""Characters of a resourceVersion, which is sent in a URL; etcd's have 19 at most."""
_MAX_RETRY_AFTER: Final = 300.0
"""Seconds; a server that asks for more has made a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What to list and watch."""

    source: str
    kind: type[Object]
    path: str
    labels: str = ""
    """Label selector."""
    fields: str = ""
    """Field selector."""
    after: str = ""
    """Source that should have delivered first."""
    wanted: str = ""
    """Name of an object that there should be."""
    none: str = ""
    """What to say when it is not there."""
    reduced: Callable[[Object], Object] | None = None
    """What of an object is kept. What this leaves equal, but for the version, is no change."""

    @property
    def query(self) -> Mapping[str, str]:
        selectors = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {name: value for name, value in selectors.items() if value}


def resources(node_name: str, service_proxy_name: str = "") -> tuple[Resource, ...]:
    """What kube-proxy 1.36 watches, with its selectors; or the Services of another proxy's name.

    But all Nodes instead of only ours: their addresses must not be claimed.
    """
    ours = f"{_PROXY_NAME}={service_proxy_name}" if service_proxy_name else f"!{_PROXY_NAME}"
    return (
        Resource(
            source=SLICES,
            kind=EndpointSlice,
            path="/apis/discovery.k8s.io/v1/endpointslices",
            labels="!service.kubernetes.io/headless",
        ),
        Resource(
            source=SERVICES,
            kind=Service,
            path="/api/v1/services",
            labels=ours,
            fields="spec.clusterIP!=None",
            after=SLICES,
        ),
        Resource(
            source=NODE,
            kind=Node,
            path="/api/v1/nodes",
            reduced=partial(_without_details, node_name),
            wanted=node_name,
            none=f"the cluster has no node {node_name}: no endpoint counts as local, and /healthz"
            " fails; --hostname-override names another one",
        ),
    )


def _without_details(own: str, node: Object) -> Object:
    """Of other Nodes only the addresses, which are never claimed: 5,000 Nodes, with their labels
    and annotations, would take 50 MB."""
    if not isinstance(node, Node) or node.metadata.name == own:
        return node
    known = ObjectMeta(name=node.metadata.name, resource_version=node.metadata.resource_version)
    return Node(metadata=known, status=node.status)


class Gone(NamedTuple):
    """An object was deleted."""

    name: ObjectName


class Listed(NamedTuple):
    """What a list has brought."""

    objects: Sequence[Object]
    """All there are."""
    changed: Sequence[Object]
    """Those that are new, or different."""


class Mirror:
    """The objects of one resource as far as the server has told.

    One that cannot be decoded becomes a complaint, and its last good version stays.
    """

    def __init__(
        self, kind: type[Object], reduced: Callable[[Object], Object] | None = None
    ) -> None:
        self._kind = kind
        self._reduced = reduced
        self._objects: dict[ObjectName, Object] = {}
        self._complaints: dict[ObjectName, ObjectStatus] = {}
        self._told: tuple[ObjectStatus, ...] | None = ()
        """What was made of them; None: they have changed since."""
        self._tombstones: dict[ObjectName, str] = {}
        """Versions of deletions, so that an event from before does not bring an object back."""
        self._listing: dict[ObjectName, Object] = {}
        self._listed_complaints: dict[ObjectName, ObjectStatus] = {}
        self.version = ""
        """Where a watch can go on; "": nowhere, everything has to be listed."""

    @property
    def complaints(self) -> tuple[ObjectStatus, ...]:
        """By name; of thousands only the first, as they are asked for after each event."""
        if self._told is None:
            known = self._complaints
            names = sorted(islice(known, MOST))
            found = (known[name] for name in names)
            self._told = tuple(first_few(found, len(known), f"{self._kind.__name__}s"))
        return self._told

    def begin(self) -> None:
        """A list begins; until `finish` nothing else changes."""
        self._listing, self._listed_complaints = {}, {}

    def list(self, raw: msgspec.Raw) -> None:
        """An object of the list. Raises MalformedAnswer where there are too many."""
        if len(self._listing) + len(self._listed_complaints) >= _MOST_OBJECTS:
            raise MalformedAnswer(f"a list has more than {_MOST_OBJECTS:,} objects")
        obj = self._decode(raw, self._listed_complaints)
        if isinstance(obj, ObjectName):
            if obj in self._objects:
                self._listing[obj] = self._objects[obj]
        elif obj is not None:
            # The old one where it is the same: others hold it, and one copy is enough.
            known = self._objects.get(obj.key)
            self._listing[obj.key] = known if known is not None and known == obj else obj

    def unlist(self, raw: msgspec.Raw) -> None:
        """An object was deleted while the list was on its way."""
        if (metadata := metadata_of(raw)) is not None:
            name = ObjectName(metadata.namespace, metadata.name)
            self._listing.pop(name, None)
            self._listed_complaints.pop(name, None)

    def finish(self, version: str) -> Listed:
        """The list is complete, as of this version. Raises MalformedAnswer where a watch could
        not go on from there."""
        if not 0 < len(version) <= _MAX_VERSION:
            raise MalformedAnswer("a list has no usable resourceVersion")
        before, self._objects = self._objects, self._listing
        self._complaints, self._told = self._listed_complaints, None
        self._tombstones.clear()
        self.begin()
        self.version = version
        objects = list(self._objects.values())
        return Listed(objects, [each for each in objects if before.get(each.key) is not each])

    def change(self, raw: msgspec.Raw) -> Object | None:
        """An object was added or modified; None: nothing to do, it is old news or unusable.

        Raises MalformedAnswer if the object has no usable name.
        """
        complaints: dict[ObjectName, ObjectStatus] = {}
        obj = self._decode(raw, complaints)
        if obj is None:
            raise MalformedAnswer("a watch sent an object without a name")
        if complaints:
            self._complaints |= complaints
            self._told = None
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
        self._drop_complaint(obj.key)
        self._tombstones.pop(obj.key, None)
        if self._reduced is not None and known is not None and _same_but_version(known, obj):
            return None
        return obj

    def delete(self, raw: msgspec.Raw) -> Gone | None:
        """An object was deleted; None: nothing to do. Raises MalformedAnswer as above."""
        metadata = metadata_of(raw)
        if metadata is None or not metadata.name:
            raise MalformedAnswer("a watch sent an object without a name")
        name = ObjectName(metadata.namespace, metadata.name)
        self._advance(metadata)
        known = self._objects.get(name)
        if known is not None and _newer(known.metadata.resource_version, metadata.resource_version):
            return None
        self._bury(name, metadata.resource_version)
        self._drop_complaint(name)
        return Gone(name) if self._objects.pop(name, None) is not None else None

    def bookmark(self, raw: msgspec.Raw) -> Metadata | None:
        """Everything up to a version was sent. Its metadata, which says more at times."""
        metadata = metadata_of(raw)
        self._advance(metadata)
        return metadata

    def _decode(
        self, raw: msgspec.Raw, complaints: dict[ObjectName, ObjectStatus]
    ) -> Object | ObjectName | None:
        """The object, or the name of one that cannot be used, or None where it has no name."""
        try:
            obj = from_json(raw, self._kind)
            return obj if self._reduced is None else self._reduced(obj)
        except DecodeError as error:
            metadata = metadata_of(raw) or Metadata()
            name = ObjectName(metadata.namespace, metadata.name)
            where = f"{self._kind.__name__} {name if metadata.name else '(without a name)'}"
            complaints[name] = ObjectStatus(
                where=brief(where), field=brief(error.path), reason=brief(error.what)
            )
            return name if metadata.name else None

    def _drop_complaint(self, name: ObjectName) -> None:
        if self._complaints.pop(name, None) is not None:
            self._told = None

    def _bury(self, name: ObjectName, version: str) -> None:
        self._tombstones[name] = version
        if len(self._tombstones) > _MAX_TOMBSTONES:
            del self._tombstones[next(iter(self._tombstones))]

    def _advance(self, metadata: Metadata | None) -> None:
        if metadata is not None:
            self._set_version(metadata.resource_version)

    def _set_version(self, version: str) -> None:
        # Before the first list is complete there is nothing to go on from.
        if self.version and len(version) <= _MAX_VERSION and _newer(version, self.version):
            self.version = version


def _same_but_version(one: Object, other: Object) -> bool:
    version = other.metadata.resource_version
    metadata = msgspec.structs.replace(one.metadata, resource_version=version)
    return msgspec.structs.replace(one, metadata=metadata) == other


def _newer(version: str, than: str) -> bool:
    """Whether a version is later. They are numbers in every server there is, and may be compared
    since Kubernetes 1.35 (KEP-5504); other ones are only told apart."""
    if version.isdecimal() and than.isdecimal():
        # Not as numbers: Python refuses those of more than 4,300 digits.
        first, second = version.lstrip("0"), than.lstrip("0")
        return (len(first), first) > (len(second), second)
    return bool(version) and version != than


class Verdict(NamedTuple):
    """What follows from something that went wrong."""

    relist: bool = False
    """Whether all has to be listed, instead of going on where the watch ended."""
    retry_after: float | None = None
    """Seconds to wait at least, at the server's wish."""
    expected: bool = False
    """Whether it is part of normal operation: no trouble to report, and, the first time, nothing
    to wait for."""
    no_watch_list: bool = False
    """Whether the server does not stream lists: do not ask for it again."""

    @property
    def gone(self) -> bool:
        """Whether the server's history does not reach back far enough."""
        return self.relist and self.expected and not self.no_watch_list


def judge(failure: Failure, *, retry_after: float | None = None, initial: bool = False) -> Verdict:
    """Judge an error of the server, from a status line or an ERROR event within a watch.

    `initial`: it was the answer to a watch that was to begin with all objects (KEP-3157).
    """
    wait = retry_after if retry_after is not None else failure.retry_after
    wait = min(wait, _MAX_RETRY_AFTER) if wait is not None else None
    if failure.code == 410:
        return Verdict(relist=True, retry_after=wait, expected=True)
    if failure.code in (401, 403, 408, 429) or failure.code > 501:
        # 504 stands for a version from the future as well: a server restored from a backup.
        return Verdict(relist=failure.code == 504, retry_after=wait)
    # 1.36 without etcd's RequestWatchProgress says 500, others 400 or 422 for the parameter.
    return Verdict(relist=True, retry_after=wait, expected=initial, no_watch_list=initial)
