"""ServiceL2Status objects: what MetalLB's tools show of who announces a Service.

Each announcing node writes its own, one for each Service, and deletes its own when it announces the
Service no longer. They go with the Node, which owns them. Nothing depends on them, so they are
written without haste, and only where their CRD exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.control.load_balancer.ask import MERGE_PATCH, Ask
from uproxy.core.backoff import Backoff
from uproxy.core.cluster.objects import ObjectName

log = logging.getLogger(__name__)

Interfaces: TypeAlias = tuple[str, ...]

_GROUP: Final = "metallb.io/v1beta1"
_NODE, _NAME, _NAMESPACE = (
    f"metallb.io/{each}" for each in ("node", "service-name", "service-namespace")
)
_ABSENT: Final = 60.0
"""Seconds until a CRD that does not exist is asked for again."""
_PAUSE: Final = 0.5
"""Seconds between two passes: addresses may move several times in a row."""
_RETRY: Final = Backoff(initial=1.0, maximum=60.0, jitter=0.5)
_PAGE: Final = 5000
"""One node announces fewer Services than that."""


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    labels: dict[str, str] | None = None


class _Interface(msgspec.Struct, frozen=True):
    name: str = ""


class _Status(msgspec.Struct, frozen=True):
    interfaces: tuple[_Interface, ...] | None = None


class _L2Status(msgspec.Struct, frozen=True):
    metadata: _Metadata
    status: _Status | None = None

    @property
    def service(self) -> ObjectName:
        labels = self.metadata.labels or {}
        return ObjectName(labels.get(_NAMESPACE, ""), labels.get(_NAME, ""))

    @property
    def interfaces(self) -> Interfaces:
        found = self.status.interfaces if self.status is not None else None
        return tuple(each.name for each in found or ())


class _List(msgspec.Struct, frozen=True):
    items: tuple[_L2Status, ...] = ()


class Steps(NamedTuple):
    """What has to be written so that the objects agree with what is announced."""

    create: Mapping[ObjectName, Interfaces]
    change: Mapping[str, tuple[ObjectName, Interfaces]]
    """By name of the object."""
    delete: tuple[str, ...]


class L2Statuses:
    """Keeps the objects of this node."""

    def __init__(self, ask: Ask, node: str, namespace: str, owner: Callable[[], str]) -> None:
        """`namespace`: that of MetalLB's objects. `owner` returns the uid of the Node, "" if it is
        not known."""
        self._ask = ask
        self._node = node
        self._owner = owner
        self._path = f"/apis/{_GROUP}/namespaces/{namespace}/servicel2statuses"
        self._wanted: Mapping[ObjectName, Interfaces] = {}
        self._wake = asyncio.Event()

    def set(self, wanted: Mapping[ObjectName, Interfaces]) -> None:
        """These Services are announced here, on these interfaces."""
        if wanted != self._wanted:
            self._wanted = dict(wanted)
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        self._wake.set()  # An earlier process may have left some.
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            pause = _PAUSE
            try:
                if not await self.write():
                    pause = _ABSENT
                    self._wake.set()
                failures = 0
            except (ApiUnreachable, msgspec.MsgspecError) as error:
                log.debug("cannot write ServiceL2Status objects: %s", error)
                failures += 1
                pause = _RETRY.delay(failures, random.random())
                self._wake.set()
            await asyncio.sleep(pause)

    async def write(self) -> bool:
        """Make the objects agree with what is announced. Returns whether their CRD exists and they
        may be written. Raises ApiUnreachable and msgspec.MsgspecError."""
        query: dict[str, str | int] = {"labelSelector": f"{_NODE}={self._node}", "limit": _PAGE}
        code, body = await self._ask(Request("GET", self._path, query))
        if code in (403, 404):
            return False
        _check(code)
        found = msgspec.json.decode(body, type=_List).items
        steps = steps_between(found, self._wanted)
        for name in steps.delete:
            _check((await self._ask(Request("DELETE", f"{self._path}/{name}")))[0], gone=True)
        for name, (service, interfaces) in steps.change.items():
            await self._patch(name, service, interfaces)
        for service, interfaces in steps.create.items():
            code, body = await self._ask(Request("POST", self._path, body=self._new(service)))
            _check(code)
            made = msgspec.json.decode(body, type=_L2Status)
            await self._patch(made.metadata.name, service, interfaces)
        return True

    async def delete_all(self) -> None:
        """The same with nothing announced, once; what cannot be done is left to the next start."""
        self._wanted = {}
        with contextlib.suppress(ApiUnreachable, msgspec.MsgspecError):
            await self.write()

    async def _patch(self, name: str, service: ObjectName, interfaces: Interfaces) -> None:
        status = {
            "node": self._node,
            "serviceName": service.name,
            "serviceNamespace": service.namespace,
            "interfaces": [{"name": each} for each in interfaces],
        }
        path = f"{self._path}/{name}/status"
        request = Request("PATCH", path, body={"status": status}, content_type=MERGE_PATCH)
        _check((await self._ask(request))[0], gone=True)

    def _new(self, service: ObjectName) -> dict[str, Any]:
        labels = {_NODE: self._node, _NAME: service.name, _NAMESPACE: service.namespace}
        return {
            "apiVersion": _GROUP,
            "kind": "ServiceL2Status",
            "metadata": {
                "generateName": "l2-",
                "labels": labels,
                "ownerReferences": list(owner_references(self._node, self._owner())),
            },
            "spec": {},
        }


def owner_references(node: str, uid: str) -> Iterator[dict[str, str]]:
    """Have the API server delete an object together with the Node; nothing where the Node is not
    known."""
    if uid:
        yield {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}


def steps_between(found: tuple[_L2Status, ...], wanted: Mapping[ObjectName, Interfaces]) -> Steps:
    """The steps from the objects that this node has to those that it should have. Of two objects
    for one Service, the second is deleted."""
    kept: dict[ObjectName, _L2Status] = {}
    delete = []
    for each in found:
        if each.service in wanted and each.service not in kept:
            kept[each.service] = each
        else:
            delete.append(each.metadata.name)
    create = {name: interfaces for name, interfaces in wanted.items() if name not in kept}
    change = {
        each.metadata.name: (name, wanted[name])
        for name, each in kept.items()
        if each.interfaces != wanted[name]
    }
    return Steps(create, change, tuple(delete))


def _check(code: int, *, gone: bool = False) -> None:
    """Raises ApiUnreachable for an answer that is no success; `gone`: 404 is one."""
    if code >= 300 and not (gone and code == 404):
        raise ApiUnreachable(f"the API server answered {code}")
