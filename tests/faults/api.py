"""An API server in memory, whose answers have the faults that are injected."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

from tests.fake_api.patching import patched
from tests.faults.injection import Bug, FaultInjector
from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import ServerAddress
from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.control.load_balancer.leader import NAME
from uproxy.sources.kubernetes.watch_format import INITIAL_EVENTS_END

_BOOKMARKS: Final = 30.0
"""Seconds between two of them."""
_HISTORY: Final = 20
"""Changes that a watch may go back."""
_STATUSES: Final = (401, 403, 404, 410, 422, 429, 500, 503, 504)
_GARBAGE: Final = (
    b"\xff\xfe\x00",
    b"{",
    b"[" * 5000,
    b"null",
    b'{"type": "ADDED"}',
    b'{"type": "MODIFIED", "object": 7}',
    b'{"type": "MODIFIED", "object": {"metadata": {"name": "s1", "namespace": []}}}',
    b'{"type": "SOMETHING", "object": {"metadata": {"name": "s1"}}}',
    b'{"type": "ERROR", "object": {"code": 410}}',
    b'{"type": "ERROR", "object": {"code": "x"}}',
    b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "' + b"9" * 5000 + b'"}}}',
    b'{"type": "DELETED", "object": {"metadata": {"name": "s1"}}, "x": 1' + b"0" * 4000 + b"}",
)
Key = tuple[str, str, str]
"""Resource, namespace, name."""


class Cluster:
    """The objects that there are, and how they came to be."""

    def __init__(self) -> None:
        self.version = 1
        self.objects: dict[Key, dict[str, Any]] = {}
        self.history: list[tuple[int, str, str, dict[str, Any]]] = []
        """Version, resource, type of the event, object."""
        self.changed: dict[asyncio.Event, None] = {}
        """Set at each change."""

    def put(self, resource: str, obj: dict[str, Any]) -> None:
        """Add an object, or replace it."""
        key = _key(resource, obj)
        self._change(resource, "MODIFIED" if key in self.objects else "ADDED", obj)
        self.objects[key] = obj

    def drop(self, key: Key) -> None:
        self._change(key[0], "DELETED", dict(self.objects.pop(key)))

    def _change(self, resource: str, kind: str, obj: dict[str, Any]) -> None:
        self.version += 1
        obj["metadata"] = {**obj["metadata"], "resourceVersion": str(self.version)}
        self.history.append((self.version, resource, kind, obj))
        for event in self.changed:
            event.set()

    def of(self, resource: str) -> list[dict[str, Any]]:
        return [obj for key, obj in self.objects.items() if key[0] == resource]

    def since(self, version: int, resource: str) -> list[tuple[int, str, dict[str, Any]]] | None:
        """None: that is too long ago."""
        if version < self.version - _HISTORY:
            return None
        return [
            (at, kind, obj) for at, of, kind, obj in self.history if at > version and of == resource
        ]


def _key(resource: str, obj: Mapping[str, Any]) -> Key:
    metadata = obj["metadata"]
    return resource, metadata.get("namespace", ""), metadata["name"]


@dataclass
class Answered:
    """An answer, in the place of the real one."""

    faults: FaultInjector
    rng: random.Random
    status: int
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    async def read(self, most: int = 0) -> bytes:
        if self.faults.happens("cut answer"):
            raise ApiUnreachable("the connection was lost")
        if self.faults.happens("nonsense"):
            return self.rng.choice(_GARBAGE)
        return self.body

    async def chunk(self) -> bytes:
        assert self.stream is not None
        return await anext(self.stream, b"")

    def keep_alive(self) -> None:
        pass

    def close(self) -> None:
        pass


class FakeApi:
    """In the place of ApiClient."""

    def __init__(self, cluster: Cluster, faults: FaultInjector, rng: random.Random) -> None:
        self.access = Access(origin="a test", server="https://192.0.2.250:6443")
        self.cluster = cluster
        self._faults = faults
        self._rng = rng

    @property
    def addresses(self) -> Sequence[ServerAddress]:
        return (ServerAddress(self.access.server, self.access.origin),)

    def learn(self, addresses: Sequence[str]) -> bool:
        return False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    @asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[Answered]:
        await asyncio.sleep(0.002)
        if self._faults.happens("bug"):
            raise Bug("a library of ours")
        if self._faults.happens("slow"):
            slow = self._rng.choice((1.0, 20.0))
            await asyncio.sleep(min(slow, request.answer_timeout))
            if slow > request.answer_timeout:
                raise ApiUnreachable("no answer in time")
        if self._faults.happens("unreachable"):
            raise ApiUnreachable("refused")
        if self._faults.happens("status"):
            yield self._answer(self._rng.choice(_STATUSES), b'{"code": 500, "message": "no"}')
            return
        yield self._answered(request)

    def _answered(self, request: Request) -> Answered:
        method, path, query = request.method, request.path, request.query
        resource = path.rpartition("/")[2]
        if (written := self._written(request)) is not None:
            return written
        if resource == "events" and self._faults.happens("events"):
            raise Bug("Events")
        if method != "GET" or resource not in ("services", "endpointslices", "nodes"):
            return self._answer(201 if method == "POST" else 200, b"{}")
        if query.get("watch") != "true":
            items = self.cluster.of(resource)
            metadata = {"resourceVersion": str(self.cluster.version)}
            return self._answer(200, json.dumps({"metadata": metadata, "items": items}).encode())
        stream = self._watch(resource, query)
        return Answered(self._faults, self._rng, 200, stream=stream)

    def _written(self, request: Request) -> Answered | None:
        """What becomes of a Lease, or of the status of a Service; None: it is about neither."""
        parts = request.path.split("/")
        if parts[-1] == "status" and parts[-3] == "services":
            key = "services", parts[-4], parts[-2]
        elif "leases" in parts:
            name = NAME if parts[-1] == "leases" else parts[-1]
            key = "leases", parts[parts.index("leases") - 1], name
        else:
            return None
        found = self.cluster.objects.get(key)
        if (found is None) is not (request.method == "POST"):
            return self._answer(404 if found is None else 409, b"{}")
        if request.method != "GET":
            version = (request.body.get("metadata") or {}).get("resourceVersion")
            if found is not None and found["metadata"]["resourceVersion"] != version:
                return self._answer(409, b"{}")
            patch = request.method == "PATCH"
            obj = patched(found, request.body, strategic=False) if patch else request.body
            self.cluster.put(key[0], dict(obj))
        return self._answer(200, json.dumps(self.cluster.objects[key]).encode())

    def _answer(self, status: int, body: bytes) -> Answered:
        return Answered(self._faults, self._rng, status, body)

    async def _watch(self, resource: str, query: Mapping[str, str | int]) -> AsyncIterator[bytes]:
        initial = query.get("sendInitialEvents") == "true"
        until = asyncio.get_running_loop().time() + int(query["timeoutSeconds"])
        version = self.cluster.version if initial else int(query["resourceVersion"])
        if initial:
            for obj in self.cluster.of(resource):
                yield _event("ADDED", obj)
            yield _bookmark(version, {INITIAL_EVENTS_END: "true"})
        changed = asyncio.Event()
        self.cluster.changed[changed] = None
        try:
            while (now := asyncio.get_running_loop().time()) < until:
                async for line in self._spoiled():
                    yield line
                changes = self.cluster.since(version, resource)
                if changes is None:
                    yield _event("ERROR", {"code": 410, "message": "too old"})
                    return
                version = self.cluster.version
                for _, kind, obj in changes:
                    yield _event(kind, obj)
                if not changes:
                    yield _bookmark(version, {})
                await _either(changed, min(_BOOKMARKS, until - now))
        finally:
            del self.cluster.changed[changed]

    async def _spoiled(self) -> AsyncIterator[bytes]:
        """What goes wrong in the middle of a watch."""
        if self._faults.happens("cut answer"):
            raise ApiUnreachable("the connection was lost")
        if self._faults.happens("nonsense"):
            yield self._rng.choice(_GARBAGE) + b"\n"
        if self._faults.happens("silence"):
            await asyncio.Event().wait()


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Wait for one or the other."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
    event.clear()


def _event(kind: str, obj: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def _bookmark(version: int, annotations: Mapping[str, str]) -> bytes:
    metadata = {"resourceVersion": str(version), "annotations": annotations}
    return _event("BOOKMARK", {"metadata": metadata})
