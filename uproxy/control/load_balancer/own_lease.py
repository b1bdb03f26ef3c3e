"""Writes the Lease with which this node tells the others what it announces."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec

from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.control.load_balancer.ask import Ask
from uproxy.core.announcing.lease_objects import encode, lease_name
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

    async def write(self, lease: AnnouncerLease) -> str:
        """Write it; returns its new resourceVersion, or "" if it was not written, or perhaps not.

        The others compare nothing with the time in it, which is for people to read.
        """
        body = encode(
            lease,
            namespace=self._namespace,
            now=micro_time_text(time.time()),
            node_uid=self._node_uid(),
        )
        request = (
            Request("PUT", self._path, body=body)
            if lease.version
            else Request("POST", self._collection, body=body)
        )
        try:
            async with asyncio.timeout(_PATIENCE):
                code, answer = await self._ask(request)
            if code < 300:
                version = msgspec.json.decode(answer, type=_Written).metadata.resource_version
                self._note("")
                return version
        except (ApiUnreachable, TimeoutError, msgspec.MsgspecError) as error:
            # That the API server does not answer is said elsewhere; it takes nothing away here.
            log.debug("cannot write the Lease of this node: %s", error or "no answer in time")
            return ""
        self._refused(code)
        return ""

    def _refused(self, code: int) -> None:
        if code == 409:
            # Another version has been written. The watch brings it, and says whose it is.
            log.debug("the Lease of this node has changed meanwhile (409)")
        elif code == 404:
            self._note(f"there is no namespace {self._namespace} (--lease-namespace)")
        else:
            self._note(_REFUSALS.get(code, f"the API server refuses the Lease ({code})"))

    def _note(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("cannot write the Lease of this node: %s", trouble)
        self.trouble = trouble
