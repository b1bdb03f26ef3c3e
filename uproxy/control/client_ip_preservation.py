"""Shows clients' addresses to backends as long as some Service wants that.

What the kernel needs for it is made when the first Service does, made anew if somebody removes it,
and goes with the last one, when its flows have ended, or when we go. What a killed process leaves
behind does no harm, and its successor takes it over, or removes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Self

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.errors import unexpected
from uproxy.core.ip import Family
from uproxy.host.client_addresses import (
    ClientAddressRules,
    explain,
    is_temporary,
    remove_client_address_rules,
    remove_rules,
)
from uproxy.host.namespace_lock import CLIENT_ADDRESSES, Locked, take_lock
from uproxy.host.threads import run_to_completion

log = logging.getLogger(__name__)

_PERIOD: Final = 10.0
"""Seconds between two looks at whether all is still there: `nft flush ruleset` is common."""
_TIMEOUT: Final = 5.0
"""Seconds that serving waits for it; it takes 0.1 s as a rule."""
_NEVER: Final = "switched off by --preserve-client-ip never"
_OTHER: Final = "another uproxy on this node does it already"


@dataclass(frozen=True, kw_only=True)
class ClientAddressCalls:
    """What is asked of the kernel and of nft, so that tests can put a model in its place."""

    new_rules: Callable[[], ClientAddressRules] = ClientAddressRules
    remove_rules: Callable[[], Sequence[str]] = remove_rules
    """For the process that has the lock."""
    remove_leftovers: Callable[[], Sequence[str]] = remove_client_address_rules
    """For a process that does not have the lock."""
    take_lock: Callable[..., socket.socket] = take_lock


_LINUX: Final = ClientAddressCalls()


class ClientIPPreservation:
    """As an async context manager, whose end removes everything; `run` does the work."""

    def __init__(
        self,
        mode: str,
        *,
        changed: Callable[[], None],
        in_use: Callable[[Collection[ObjectName]], bool],
        period: float = _PERIOD,
        calls: ClientAddressCalls = _LINUX,
    ) -> None:
        """`mode`: "auto" or "never". `changed` is called when `families` is another; `in_use` says
        whether any of these Services has flows."""
        self._mode = mode
        self._changed = changed
        self._in_use = in_use
        self._period = period
        self._calls = calls
        self._made = calls.new_rules()
        self._lock: socket.socket | None = None
        self._wanted: frozenset[ObjectName] = frozenset()
        self._shown: set[ObjectName] = set()
        """Services that may have flows with clients' addresses."""
        self._tried = False
        """Whether there is nothing to wait for."""
        self._hopeless = False
        """Whether it has turned out not to be possible here."""
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()

    @property
    def families(self) -> Sequence[Family]:
        """Those in which backends can be shown the addresses of clients."""
        return self._made.families

    @property
    def reason(self) -> str:
        """Why they cannot, where a Service wants it; "" if they can, or none does."""
        return self._made.reason

    async def __aenter__(self) -> Self:
        if self._mode == "never":
            self._made.reason = _NEVER
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self._calls.remove_leftovers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def prepare(self, services: Collection[ObjectName]) -> None:
        """These are all Services that want it. Returns when it is there, or is not going to be."""
        if self._mode == "never":
            return
        first = not self._settled.is_set()
        before, self._wanted = self._wanted, frozenset(services)
        self._shown |= self._wanted
        if self._wanted and not self._tried:
            self._settled.clear()
            self._wake.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TIMEOUT):
                    await self._settled.wait()
        elif first or bool(before) != bool(self._wanted):
            self._wake.set()

    async def run(self) -> None:
        """Make, look after and remove it, for ever."""
        if not self._settled.is_set():
            await self._wake.wait()
            await self._remove_leftovers()
        while True:
            self._wake.clear()
            try:
                await self._act()
            except Exception as error:  # Services are served all the same, by other addresses.
                log.exception("clients' addresses cannot be shown to pods")
                self._made.families, self._made.reason = (), unexpected(error)
            if not self._wake.is_set():  # Otherwise something else is wanted by now.
                self._settled.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    await self._wake.wait()

    async def _act(self) -> None:
        before = self._made.families
        if self._wanted:
            if self._lock is None and not self._hopeless:
                await self._begin()
            elif self._lock is not None:
                await self._repair()
            self._tried = True
        else:
            self._tried = self._hopeless = False
            if self._lock is None:
                self._made.reason = ""
            elif not self._in_use(self._shown):
                await self._end()
        if self._made.families != before:
            self._changed()

    async def _begin(self) -> None:
        try:
            self._lock = self._calls.take_lock(CLIENT_ADDRESSES, attempts=1)
        except OSError as error:
            self._hopeless = not isinstance(error, Locked) and not is_temporary(error)
            self._made.reason = _OTHER if isinstance(error, Locked) else explain(error)
        else:
            await run_to_completion(self._made.install)
            if not self._made.families:
                self._hopeless = not self._made.temporary
                reason = self._made.reason
                log.info("pods see this node's address in place of the client's: %s", reason)
                await self._end()
                self._made.reason = reason

    async def _repair(self) -> None:
        """Put back what another program has removed, or what could not be put back before."""
        there = bool(self._made.families)
        if there and await asyncio.to_thread(self._made.intact):
            return
        await run_to_completion(self._made.install)
        outcome = self._made.reason or "repaired"
        if there:
            log.warning(
                "another program removed the rules that show clients' addresses to pods: %s",
                outcome,
            )
        elif self._made.families:
            log.info("pods see the addresses of clients again")

    async def _end(self) -> None:
        lock, self._lock = self._lock, None
        if lock is None:
            return
        self._made.families, self._made.reason = (), ""
        self._shown = set(self._wanted)
        with lock:
            try:
                await run_to_completion(self._calls.remove_rules)
            except Exception as error:
                log.warning(
                    "cannot remove the rules that showed clients' addresses to pods: %s", error
                )

    async def _remove_leftovers(self) -> None:
        if not self._wanted:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self._calls.remove_leftovers)
