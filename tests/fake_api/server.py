"""The fake API server's HTTP side.

async with FakeApi() as server:
    server.apply(service)                  # any object, as data
    server.url                             # for clients
    server.requests                        # what they have asked
    server.answer(429, on="services")      # faults, one by one
    server.order(Watching.reset)           # ... of watches that are open
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Self

import msgspec
from aiohttp import web

from tests.fake_api import protobuf
from tests.fake_api.field_validation import check_fields
from tests.fake_api.kinds import KINDS, Kind, discovery, kind_of
from tests.fake_api.openapi import openapi
from tests.fake_api.selectors import selection
from tests.fake_api.store import GONE, ApiError, Data, Item, Store
from tests.fake_api.tables import table, wants_table
from tests.fake_api.watching import Watching, WatchList
from tests.fake_api.writing import Target, patch, target_of, write


class ReceivedRequest(NamedTuple):
    """A request that a client made."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class _Fault(NamedTuple):
    on: str
    watch: bool | None
    code: int
    headers: Mapping[str, str]


class FakeApi:
    """An API server on loopback, open while the context is."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        history: int = 1000,
        bookmark_period: float = 1.0,
        same_cluster_as: FakeApi | None = None,
    ) -> None:
        """`same_cluster_as`: another server, with which this one shares all objects."""
        self.store: Store = same_cluster_as.store if same_cluster_as else Store(history)
        self.requests: list[ReceivedRequest] = []
        self.watches: list[Watching] = []
        self.tokens: set[str] | None = None
        """Bearer tokens that are accepted; None: no token is needed."""
        self.watch_list: WatchList = "served"
        self.forbids = False
        """Whether everything is forbidden, as while a server has not read its roles yet."""
        self.strict = False
        """Whether fieldValidation=Strict has an effect. The first time takes seconds."""
        self.gone_as_status = False
        """Whether a watch from a version too old is answered 410, instead of an ERROR event."""
        self.bookmark_period = bookmark_period
        """Seconds; 60 in a real server."""
        self.watch_limit = 1800.0
        """Seconds after which watches end, even if more was asked for."""
        self.host = host
        self.port = port
        self._tls = tls
        self._faults: list[_Fault] = []
        self._pages: dict[str, tuple[int, list[Item]]] = {}
        self._runner: web.AppRunner | None = None
        self.store.on_change.append(self._changed)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.01, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, self.host, self.port, ssl_context=self._tls, reuse_address=True
        )
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close everything, like a server that is restarted. `__aenter__` starts it again."""
        self.order(Watching.close)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://{self.host}:{self.port}"

    def apply(self, *objects: Data) -> None:
        """Create or replace objects."""
        for data in objects:
            self.store.apply(kind_of(data), data)

    def delete(self, kind: Kind, name: str, namespace: str = "default") -> None:
        self.store.delete(kind, (namespace if kind.namespaced else "", name))

    def uninstall(self, *kinds: Kind) -> None:
        """Delete CustomResourceDefinitions: their objects go, and watches of them end."""
        self.store.uninstall(*kinds)
        for kind in kinds:
            self.order(Watching.close, on=kind.plural)

    def install(self, *kinds: Kind) -> None:
        self.store.install(*kinds)

    def answer(
        self,
        code: int,
        *,
        on: str = "",
        watch: bool | None = None,
        times: int = 1,
        retry_after: int | str | None = None,
    ) -> None:
        """Answer the next requests with an error; `on` is part of the path, `watch`: (no) watch."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._faults += [_Fault(on, watch, code, headers)] * times

    def heal(self) -> None:
        """Forget faults that have not happened yet."""
        self._faults.clear()

    def order(self, act: Callable[[Watching], Awaitable[None]], on: str = "") -> int:
        """Let watches that are open do something; returns how many."""
        found = [each for each in self.watches if on in each.kind.plural]
        for each in found:
            each.order(act)
        return len(found)

    def expire(self) -> None:
        """Forget the history and the snapshots of lists: everything is too old."""
        self.store.forget()
        self._pages.clear()
        self._changed()

    def expire_pages(self) -> None:
        """Forget the snapshots of lists, so that the rest of one cannot be had any more."""
        self._pages.clear()

    def asked(self, part: str, **query: str) -> list[ReceivedRequest]:
        """Requests with this in the path, and with these query parameters."""
        return [
            each
            for each in self.requests
            if part in each.path and all(each.query.get(key) == query[key] for key in query)
        ]

    def _changed(self) -> None:
        for each in self.watches:
            each.wake()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.requests.append(
            ReceivedRequest(request.method, request.path, query, dict(request.headers))
        )
        try:
            if (fault := self._fault(request)) is not None:
                error = ApiError(fault.code, "Fault", "as ordered by the test")
                return web.json_response(error.status(), status=fault.code, headers=fault.headers)
            if self.forbids:
                raise ApiError(403, "Forbidden", f"{request.path} is forbidden: not yet synced")
            self._authenticate(request)
            found = self._described(request.path.rstrip("/"))
            if found is not None:
                return web.json_response(found)
            target = target_of(request.path)
            if target.kind in self.store.missing:
                return web.Response(text="404 page not found\n", status=404)
            return await self._serve(request, target)
        except ApiError as error:
            return web.json_response(error.status(), status=error.code)

    def _described(self, path: str) -> Data | None:
        kinds = [each for each in KINDS if each not in self.store.missing]
        return discovery(path, kinds) or openapi(path, kinds)

    def _fault(self, request: web.Request) -> _Fault | None:
        watching = _is_watch(request.query)
        for fault in self._faults:
            if fault.on in request.path and fault.watch in (None, watching):
                self._faults.remove(fault)
                return fault
        return None

    def _authenticate(self, request: web.Request) -> None:
        if self.tokens is None:
            return
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise ApiError(401, "Unauthorized", "Unauthorized")

    async def _serve(self, request: web.Request, target: Target) -> web.StreamResponse:
        if request.method == "GET" and not target.name:
            if _is_watch(request.query):
                return await self._watch(request, target)
            return self._list(request, target)
        body = await request.read()
        store = self.store.scratch() if request.query.get("dryRun") else self.store
        strict = self.strict and request.query.get("fieldValidation") == "Strict"
        if request.method == "PATCH":
            content_type = request.headers["Content-Type"]
            data = msgspec.json.decode(body)
            if strict:
                check_fields(patch(store.scratch(), target, data, content_type).data)
            item = patch(store, target, data, content_type)
        else:
            data = _sent(request, body)
            if strict:
                check_fields(data)
            item = write(store, request.method, target, data)
        code = 201 if request.method == "POST" else 200
        if wants_table(request.headers.get("Accept", "")):
            version = item.data["metadata"]["resourceVersion"]
            return web.json_response(table(target.kind, [item.data], version), status=code)
        return web.Response(body=item.raw, content_type="application/json", status=code)

    def _list(self, request: web.Request, target: Target) -> web.Response:
        # What comes instead of a watch is a whole list.
        query = {} if _is_watch(request.query) else request.query
        if query.get("continue"):
            if query["continue"] not in self._pages:
                raise GONE
            version, items = self._pages.pop(query["continue"])
        else:
            version, items = self.store.version, self._selected(query, target)
        metadata: Data = {"resourceVersion": str(version)}
        limit = int(query.get("limit", 0)) or len(items)
        if len(items) > limit:
            metadata["continue"] = uuid.uuid4().hex
            metadata["remainingItemCount"] = len(items) - limit
            self._pages[metadata["continue"]] = (version, items[limit:])
        if wants_table(request.headers.get("Accept", "")):
            objects = [each.data for each in items[:limit]]
            return web.json_response(table(target.kind, objects, str(version)))
        head = {
            "kind": f"{target.kind.kind}List",
            "apiVersion": target.kind.api_version,
            "metadata": metadata,
        }
        raw = b",".join(each.raw for each in itertools.islice(items, limit))
        body = msgspec.json.encode(head)[:-1] + b',"items":[' + raw + b"]}\n"
        return web.Response(body=body, content_type="application/json")

    def _selected(self, query: Mapping[str, str], target: Target) -> list[Item]:
        match = _selection(query)
        items = self.store.items(target.kind).items()
        return [
            item
            for (namespace, _), item in items
            if target.namespace in ("", namespace) and match(item.data)
        ]

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        query = request.query
        if "sendInitialEvents" in query and self.watch_list == "bad-request":
            text = "sendInitialEvents is forbidden for watch unless the WatchList feature is on"
            raise ApiError(422, "Invalid", text)
        if "sendInitialEvents" in query and self.watch_list == "plain-list":
            return self._list(request, target)
        version = query.get("resourceVersion", "")
        if version not in ("", "0") and self.gone_as_status:
            list(self.store.since(int(version)))
        match = _selection(query)

        def within(data: Mapping[str, Any]) -> bool:
            return target.namespace in ("", data["metadata"].get("namespace")) and match(data)

        watching = Watching(target.kind, within, dict(query), request, self.store)
        self.watches.append(watching)
        try:
            await watching.run(self.bookmark_period, self.watch_list, self.watch_limit)
        finally:
            self.watches.remove(watching)
        return watching.response

    async def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Wait for something to become true. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.005)


def _selection(query: Mapping[str, str]) -> Any:
    try:
        return selection(query.get("labelSelector", ""), query.get("fieldSelector", ""))
    except ValueError as error:
        raise ApiError(400, "BadRequest", str(error)) from None


def _sent(request: web.Request, body: bytes) -> Data:
    """The object to be written. What else a client sends, such as DeleteOptions, has no effect."""
    if request.method not in ("POST", "PUT"):
        return {}
    if request.content_type == protobuf.CONTENT_TYPE:
        return protobuf.secret(body)
    data: Data = msgspec.json.decode(body or b"{}")
    return data


def _is_watch(query: Mapping[str, str]) -> bool:
    return query.get("watch") in ("true", "True", "1")
