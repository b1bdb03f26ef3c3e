"""Which of the processes of a cluster hands out addresses: the one that holds a Lease.

Losing the Lease takes nothing away; addresses stay as they are until another process has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from uproxy.apiserver.leader_election import ElectionPace, Holding, take_part
from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.control.load_balancer.ask import Ask
from uproxy.core.announcing.rendezvous import score
from uproxy.core.brief import brief
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.timestamps import micro_time_text
from uproxy.sources.kubernetes.watch_format import read_failure
from uproxy.text.json_text import UNREADABLE

log = logging.getLogger(__name__)

NAME: Final = "uproxy-allocator"
"""The name of the Lease."""
_API: Final = "coordination.k8s.io/v1"
_PACE: Final = ElectionPace()
_FIRST: Final = 4
"""Nodes that ask for the Lease at the pace of the election. The others ask more rarely: a thousand
nodes that all asked every 2 s would be 500 requests per second, and so they are about 20."""
_RAREST: Final = 60.0
"""Seconds between two requests of a node that asks most rarely."""


_ATTEMPTS: Final = 3
_BEGINS: Final = "this process hands out the addresses of load balancers from now on"
_ENDS: Final = "this process no longer hands out addresses of load balancers; those given out stay"


class Refused(Exception):
    """The API server does not let this process use the Lease; the message says why."""


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    renew_time: str | None = None


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str
    """Without it, a write would not be refused if another process has written meanwhile."""


class _Lease(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _Spec | None = None

    @property
    def holding(self) -> Holding:
        spec = self.spec or _Spec()
        return Holding(spec.holder_identity or "", spec.renew_time or "")


class AllocatorLease:
    """The Lease, as an `ElectionLock`. It goes by a monotonic clock of its own: a holder is dead
    when it was not *seen* to renew for the whole duration."""

    def __init__(
        self,
        ask: Ask,
        *,
        namespace: str,
        identity: str,
        duration: float,
        deadline: float,
        noted: Callable[[], None],
        extra_wait: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`noted` is called after each answer. `extra_wait`: seconds for which a process that does
        not hold the Lease waits before it asks."""
        self.identity = identity
        self.holder = ""
        """The identity that held it when it was last seen; "" if none did, or if that is not
        known."""
        self.given_up = False
        """Whether this process wants it no more."""
        self._ask = ask
        self._namespace = namespace
        self._duration = duration
        self._deadline = deadline
        self._noted = noted
        self._extra_wait = extra_wait
        self._clock = clock
        self._path = f"/apis/{_API}/namespaces/{namespace}/leases"
        self._object: dict[str, Any] = {}
        """The Lease as it was last read or written."""
        self._seen: Holding | None = None
        self._seen_at = 0.0
        self._held_until = 0.0

    @property
    def held(self) -> bool:
        """Whether this process holds it at this moment."""
        return self.remaining > 0

    @property
    def remaining(self) -> float:
        """Seconds for which this process holds it, if it is not renewed; 0: it does not."""
        return max(0.0, self._held_until - self._clock())

    async def read(self) -> Holding | None:
        """See ElectionLock. A holder that is dead is not named."""
        if not self.held and not self.given_up:
            await asyncio.sleep(self._extra_wait())
        status, body = await self._ask(Request("GET", f"{self._path}/{NAME}"))
        if status == 404:
            self._note(None)
            return None
        self._decode(status, body)
        found = self._note(_holding(self._object))
        expired = self._clock() - self._seen_at >= self._duration
        if expired and found.holder != self.identity:
            return found._replace(holder="")
        return found

    async def create(self) -> bool:
        """See ElectionLock."""
        body = {
            "apiVersion": _API,
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": self._namespace},
            "spec": self._spec({}, self.identity),
        }
        return await self._write(Request("POST", self._path, body=body))

    async def take(self) -> bool:
        """See ElectionLock."""
        holder = self._seen.holder if self._seen is not None else ""
        alive = self._clock() - self._seen_at < self._duration
        if holder not in ("", self.identity) and alive:
            return False  # The wall clock was set, by which the library goes.
        return await self._put(self.identity)

    async def give_up(self) -> None:
        """Let another process have it at once. Raises what requests raise."""
        held, self.given_up, self._held_until = self.held, True, 0.0
        self._noted()
        for _ in range(_ATTEMPTS if held else 0):
            # A renewal that is under way makes the first attempt fail.
            await self.read()
            if self.holder != self.identity or await self._put(""):
                return

    async def _put(self, holder: str) -> bool:
        spec = self._spec(self._object.get("spec") or {}, holder)
        path = f"{self._path}/{NAME}"
        return await self._write(Request("PUT", path, body={**self._object, "spec": spec}))

    async def _write(self, request: Request) -> bool:
        wanted = request.body["spec"]["holderIdentity"]
        if self.given_up and wanted:
            return False
        asked = self._clock()
        status, body = await self._ask(request)
        if status == 409:
            return False
        if status == 404:
            self._note(None)  # It was deleted, so that another process may have created it.
        self._decode(status, body)
        # Counted from the time before the request: the server may have taken it at once, and have
        # answered late.
        held = wanted and not self.given_up
        self._held_until = asked + self._deadline if held else 0.0
        self._note(_holding(self._object))
        return True

    def _decode(self, status: int, body: bytes) -> None:
        if status >= 300:
            text = str(read_failure(body, status))
            if status == 429 or status >= 500:
                raise ApiUnreachable(text)
            if status in (401, 403):
                text += (
                    f"; grant get, create and update on leases in the namespace {self._namespace}"
                )
            elif status == 404:
                text += f"; is there a namespace {self._namespace}? (--lease-namespace)"
            raise Refused(text)
        try:
            found = msgspec.json.decode(body, type=dict[str, Any])
            _holding(found)
        except UNREADABLE as error:
            raise Refused(f"the Lease cannot be read: {brief(str(error))}") from None
        self._object = found

    def _note(self, found: Holding | None) -> Holding:
        if found is None or found != self._seen:
            self._seen, self._seen_at = found, self._clock()
        self.holder = found.holder if found is not None else ""
        if self.holder != self.identity:
            self._held_until = 0.0
        self._noted()
        return found or Holding("", "")

    def _spec(self, before: dict[str, Any], holder: str) -> dict[str, Any]:
        now = micro_time_text(time.time())
        spec = {**before, "holderIdentity": holder, "renewTime": now}
        spec["leaseDurationSeconds"] = int(self._duration)
        if before.get("holderIdentity") != holder:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(before.get("leaseTransitions") or 0) + bool(before)
        return spec


def _holding(lease: dict[str, Any]) -> Holding:
    return msgspec.convert(lease, _Lease).holding


class Leader:
    """Takes part in the election as long as the program runs."""

    name = "leader election"

    def __init__(
        self,
        ask: Ask,
        *,
        namespace: str,
        node: str,
        nodes: Callable[[], Collection[str]],
        changed: Callable[[], None],
        pace: ElectionPace = _PACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`nodes`: the names of all nodes. `changed` is called when this process may have got or
        lost the Lease."""
        self.trouble = ""
        """Why the Lease cannot be had or kept; "": there is no trouble."""
        self._logged = ""
        """The refusal that was logged last."""
        self._led = False
        """Whether this process was last told to hand out addresses."""
        self._changed = changed
        self._pace = pace
        self._noted = asyncio.Event()
        self._lease = AllocatorLease(
            ask,
            namespace=namespace,
            identity=f"{node}_{random.getrandbits(64):016x}",
            duration=pace.duration,
            deadline=pace.deadline,
            noted=self._noted.set,
            extra_wait=lambda: extra_wait(node, nodes(), pace.retry),
            clock=clock,
        )

    @property
    def leading(self) -> bool:
        """Whether this process hands out addresses at this moment."""
        return self._lease.held

    @property
    def holder(self) -> str:
        """The identity of the process that does, as far as it is known."""
        return self._lease.holder

    @property
    def identity(self) -> str:
        """That of this process."""
        return self._lease.identity

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell(), name="leadership")
            await self._take_part()

    def object_changed(self, kind: type[Object], name: ObjectName) -> None:
        """Nothing depends on it."""

    def changed(self) -> None:
        """Nothing depends on it."""

    async def release(self) -> None:
        """Let another process have the Lease."""
        try:
            await self._lease.give_up()
        except (ApiUnreachable, Refused) as error:
            log.debug("cannot release the Lease %s: %s", NAME, error)

    async def _take_part(self) -> None:
        while True:
            try:
                await take_part(self._lease, self._pace)
            except ApiUnreachable as error:
                # The sources say so already, and the Lease stays ours for a while.
                self.trouble = f"the API server does not answer: {error}"
            except Refused as error:
                level = logging.DEBUG if self._logged == str(error) else logging.WARNING
                log.log(level, "cannot use the Lease %s: %s", NAME, error)
                self._logged = str(error)
                self.trouble = f"the Lease {NAME} cannot be used: {error}"
            await asyncio.sleep(self._pace.retry)

    async def _tell(self) -> None:
        """Notice what becomes of the Lease, which also runs out by itself."""
        while True:
            self._noted.clear()
            leading = self.leading
            if leading != self._led:
                log.info(_BEGINS if leading else _ENDS)
                self._led, self._logged = leading, ""
                self._changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease.remaining if leading else None):
                    await self._noted.wait()
            if self.leading or self.holder not in ("", self.identity):
                self.trouble = ""


def extra_wait(node: str, nodes: Collection[str], retry: float) -> float:
    """Seconds that a node waits, besides `retry`, before it asks for a Lease that it does not hold.

    The order of the nodes is by a hash of their names. If the first ones do not run this program,
    the next ones take the Lease a little later.
    """
    own = _score(node), node
    before = sum((_score(each), each) > own for each in nodes if each != node)
    return min(_RAREST, retry * (before // _FIRST))


def _score(node: str) -> int:
    return score(NAME, node)
