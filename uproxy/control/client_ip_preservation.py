"""Shows clients' addresses to backends as long as some Service asks for that.

The kernel needs rules for it. They are installed when the first Service asks for it, and repaired
if another program removes them. They are removed when no Service asks for it any more and its flows
have ended, or when this process ends. The rules that a killed process leaves behind do no harm: its
successor takes them over, or removes them.
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
"""Seconds between two checks of whether the rules are still there: `nft flush ruleset` is
common."""
_TIMEOUT: Final = 5.0
"""Seconds that serving waits for the rules; to install them usually takes 0.1 s."""
_SWITCHED_OFF: Final = "switched off by --preserve-client-ip never"
_LOCKED: Final = "another uproxy on this node has installed the rules already"


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
    """Installs and removes the rules. An async context manager, whose end removes them; `run` does
    the work meanwhile."""

    def __init__(
        self,
        mode: str,
        *,
        changed: Callable[[], None],
        in_use: Callable[[Collection[ObjectName]], bool],
        period: float = _PERIOD,
        calls: ClientAddressCalls = _LINUX,
    ) -> None:
        """`mode`: "auto" or "never". `changed` is called when `families` has changed; `in_use` says
        whether any of these Services has flows."""
        self._mode = mode
        self._changed = changed
        self._in_use = in_use
        self._period = period
        self._calls = calls
        self._rules = calls.new_rules()
        self._lock: socket.socket | None = None
        self._wanted: frozenset[ObjectName] = frozenset()
        self._may_have_flows: set[ObjectName] = set()
        """Services that may still have flows with clients' addresses."""
        self._tried = False
        """Whether `prepare` need not wait, as the outcome of an attempt is known."""
        self._impossible = False
        """Whether it has turned out not to be possible on this node."""
        self._wake = asyncio.Event()
        self._done = asyncio.Event()

    @property
    def families(self) -> Sequence[Family]:
        """The families in which backends can be shown the addresses of clients."""
        return self._rules.families

    @property
    def reason(self) -> str:
        """Why backends cannot be shown them though a Service wants it; "": they can, or no Service
        wants it."""
        return self._rules.reason

    async def __aenter__(self) -> Self:
        if self._mode == "never":
            self._rules.reason = _SWITCHED_OFF
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self._calls.remove_leftovers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._remove()

    async def prepare(self, services: Collection[ObjectName]) -> None:
        """These are all Services that want it. Returns when the rules are installed, or are known
        not to be possible, or after a timeout."""
        if self._mode == "never":
            return
        first = not self._done.is_set()
        before, self._wanted = self._wanted, frozenset(services)
        self._may_have_flows |= self._wanted
        if self._wanted and not self._tried:
            self._done.clear()
            self._wake.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TIMEOUT):
                    await self._done.wait()
        elif first or bool(before) != bool(self._wanted):
            self._wake.set()

    async def run(self) -> None:
        """Install, repair and remove the rules, for ever."""
        if not self._done.is_set():
            await self._wake.wait()
            await self._remove_leftovers()
        while True:
            self._wake.clear()
            try:
                await self._update()
            except Exception as error:  # Services are still served, from this node's address.
                log.exception("cannot show clients' addresses to pods")
                self._rules.families, self._rules.reason = (), unexpected(error)
            if not self._wake.is_set():  # Otherwise something else is wanted by now.
                self._done.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    await self._wake.wait()

    async def _update(self) -> None:
        before = self._rules.families
        if self._wanted:
            if self._lock is None and not self._impossible:
                await self._install()
            elif self._lock is not None:
                await self._repair()
            self._tried = True
        else:
            self._tried = self._impossible = False
            if self._lock is None:
                self._rules.reason = ""
            elif not self._in_use(self._may_have_flows):
                await self._remove()
        if self._rules.families != before:
            self._changed()

    async def _install(self) -> None:
        try:
            self._lock = self._calls.take_lock(CLIENT_ADDRESSES, attempts=1)
        except OSError as error:
            self._impossible = not isinstance(error, Locked) and not is_temporary(error)
            self._rules.reason = _LOCKED if isinstance(error, Locked) else explain(error)
        else:
            await run_to_completion(self._rules.install)
            if not self._rules.families:
                self._impossible = not self._rules.temporary
                reason = self._rules.reason
                log.info("pods see this node's address instead of the client's: %s", reason)
                await self._remove()
                self._rules.reason = reason

    async def _repair(self) -> None:
        """Install again what another program has removed, or what could not be repaired before."""
        there = bool(self._rules.families)
        if there and await asyncio.to_thread(self._rules.intact):
            return
        await run_to_completion(self._rules.install)
        outcome = self._rules.reason or "repaired"
        if there:
            log.warning(
                "another program removed the rules that show clients' addresses to pods: %s",
                outcome,
            )
        elif self._rules.families:
            log.info("pods see clients' addresses again")

    async def _remove(self) -> None:
        lock, self._lock = self._lock, None
        if lock is None:
            return
        self._rules.families, self._rules.reason = (), ""
        self._may_have_flows = set(self._wanted)
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
