"""Writes the Lease with which this node tells the others what it announces."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.control.load_balancer.ask import Ask
from uproxy.core.announcing.lease_objects import decode, encode, lease_name
from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.timestamps import micro_time_text

log = logging.getLogger(__name__)

_PATIENCE: Final = 1.0
"""Seconds for one attempt. Renewals are a second apart, and a late one is as good as none."""
_REFUSALS: Final = {
    401: "the API server does not accept the credentials (401)",
    403: "the API server forbids writing Leases (403); grant create, get, list, watch and update "
    "on leases",
}


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str


class _Written(msgspec.Struct, frozen=True):
    metadata: _Metadata


class Outcome(NamedTuple):
    """What has become of an attempt to write the Lease."""

    version: str = ""
    """Its new resourceVersion; "": it was not written, or perhaps was."""
    conflict: bool = False
    """Whether it was not written because another version of it is there, or none."""
    current: AnnouncerLease | None = None
    """What is there instead, if there was a conflict; None: nothing is."""


_FAILED: Final = Outcome()


class OwnLease:
    """The Lease of this node."""

    def __init__(self, ask: Ask, *, node: str, namespace: str, node_uid: Callable[[], str]) -> None:
        """`node_uid` returns the uid of the Node, "" as long as it is not known."""
        self.trouble = ""
        """Why it cannot be written, "" if it can be."""
        self._ask = ask
        self._namespace = namespace
        self._node_uid = node_uid
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{lease_name(node)}"

    async def write(self, lease: AnnouncerLease) -> Outcome:
        """Create it, or replace the version that it names."""
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._write(lease)
        except (ApiUnreachable, TimeoutError, msgspec.MsgspecError) as error:
            # That the API server does not answer is said elsewhere; it takes nothing away here.
            log.debug("cannot write the Lease of this node: %s", error or "no answer in time")
            return _FAILED

    async def _write(self, lease: AnnouncerLease) -> Outcome:
        # The others do not compare anything with the time in it, which is for people to read.
        now, uid = micro_time_text(time.time()), self._node_uid()
        body = encode(lease, namespace=self._namespace, now=now, node_uid=uid)
        request = (
            Request("PUT", self._path, body=body)
            if lease.version
            else Request("POST", self._collection, body=body)
        )
        code, answer = await self._ask(request)
        if code < 300:
            self._note("")
            return Outcome(msgspec.json.decode(answer, type=_Written).metadata.resource_version)
        if code == 409:
            return await self._read()
        if code == 404 and lease.version:
            return Outcome(conflict=True)
        if code == 404:
            self._note(f"there is no namespace {self._namespace} (--lease-namespace)")
        else:
            self._note(_REFUSALS.get(code, f"the API server refuses the Lease ({code})"))
        return _FAILED

    async def _read(self) -> Outcome:
        code, answer = await self._ask(Request("GET", self._path))
        if code == 404:
            return Outcome(conflict=True)
        found = decode(msgspec.json.decode(answer, type=dict[str, Any])) if code < 300 else None
        if isinstance(found, AnnouncerLease):
            return Outcome(conflict=True, current=found)
        if found is not None:
            self._note(f"it cannot be used: {found.reason}; delete Lease {found.name}")
        return _FAILED

    def _note(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("cannot write the Lease of this node: %s", trouble)
        self.trouble = trouble
