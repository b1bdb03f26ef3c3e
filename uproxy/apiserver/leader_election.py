"""Election of a leader among processes, by kubernetes_asyncio, with a lock that is given.

The library's own lock for Leases is not used. It needs the classes of all types of the API (100
MiB), and writes the local time as if it were UTC. The lock also decides by itself whether the
holder is still alive: the library goes by the wall clock, which may be set while it waits.
"""

from __future__ import annotations

import logging
from typing import Any, Final, NamedTuple, Protocol

from uproxy.apiserver import client_library

_LOGGER: Final = "kubernetes_asyncio.leaderelection.leaderelection"


class ElectionPace(NamedTuple):
    """Times of an election in seconds. Each is longer than the next; the library takes none below
    1."""

    duration: float = 10.0
    """A holder that has not been seen to renew for so long is taken to be dead."""
    deadline: float = 6.0
    """A holder that could not renew for so long holds the lock no more. It is shorter than
    `duration`, so that requests which are under way end before another process begins."""
    retry: float = 2.0
    """Between two attempts to renew, or to take the lock."""


class Holding(NamedTuple):
    """Who holds the lock."""

    holder: str
    """"": the lock is free."""
    renewals: str
    """A text that is another one after each renewal."""


class ElectionLock(Protocol):
    """Where the processes agree. What its methods raise ends the attempt."""

    @property
    def identity(self) -> str:
        """Tells this process from all others."""

    async def read(self) -> Holding | None:
        """Who holds it; None: it does not exist yet."""

    async def create(self) -> bool:
        """Create it, held by this process. Returns whether that has worked."""

    async def take(self) -> bool:
        """Take it if it is as `read` found it, or renew it. Returns whether that has worked."""


async def take_part(lock: ElectionLock, pace: ElectionPace) -> None:
    """Take the lock as soon as it is free, and renew it until that fails. Raises what the lock
    raises."""
    library = client_library.load_election()
    # It reports each attempt that fails; whoever calls this reports what is worth it.
    logging.getLogger(_LOGGER).setLevel(logging.CRITICAL)
    config = library.Config(
        _LibraryLock(lock, library, pace),
        pace.duration,
        pace.deadline,
        pace.retry,
        onstarted_leading=_nothing,
        onstopped_leading=_nothing,
    )
    await library.LeaderElection(config).run()


async def _nothing() -> None:
    """The library starts this as a task when the lock was taken. It knows no owner of that task,
    which therefore does nothing: the lock knows who holds it."""


class _LibraryLock:
    """What the library takes for a lock: it has the methods of its BaseLock."""

    def __init__(
        self, lock: ElectionLock, library: client_library.ElectionLibrary, pace: ElectionPace
    ) -> None:
        self.identity = lock.identity
        self.name = self.namespace = ""
        self._lock = lock
        self._library = library
        self._duration = str(pace.duration)

    async def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        found = await self._lock.read()
        if found is None:
            absent = self._library.ApiException(status=404)
            absent.body = b'{"code": 404}'
            return False, absent
        if not found.holder:
            return True, self._library.Record(None, None, None, None)
        # The library compares these times as texts only.
        times = found.renewals, found.renewals
        return True, self._library.Record(found.holder, self._duration, *times)

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        return await self._lock.create()

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        return await self._lock.take()
