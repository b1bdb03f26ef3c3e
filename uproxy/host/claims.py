"""The addresses that this process has claimed for Services."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Self

from uproxy.core.errors import unexpected
from uproxy.host import claim_routes, our_routes
from uproxy.host.namespace_lock import Locked, take_lock
from uproxy.host.threads import run_to_completion

log = logging.getLogger(__name__)

_PERIOD = 5.0
"""Seconds between two checks whether all claims are still there: `ip route flush` removes them."""

NEVER = "--claim-addresses is never"
UNPRIVILEGED = "claiming it needs CAP_NET_ADMIN"


@dataclass(frozen=True, kw_only=True)
class ClaimCalls:
    """What claims ask of the kernel, each in a thread. Tests put a model in its place."""

    add: Callable[[Sequence[str]], Mapping[str, OSError]] = claim_routes.add_claims
    release: Callable[[Sequence[str]], Mapping[str, OSError]] = claim_routes.release_claims
    held: Callable[[], frozenset[str]] = claim_routes.held_claims
    permission_error: Callable[[], OSError | None] = our_routes.permission_error
    take_lock: Callable[[], socket.socket] = take_lock


_LINUX = ClaimCalls()


class Claims:
    """Claims and releases addresses. An async context manager, whose end releases all of them; the
    listeners must have been closed by then.

    Claims outlive a process that is killed. The next process takes them over, and its reconciler
    releases those that no Service needs any longer. Netlink is used in a thread, for a whole batch
    at a time.
    """

    def __init__(self, *, enabled: bool, calls: ClaimCalls = _LINUX) -> None:
        self._calls = calls
        self.reason = "" if enabled else NEVER
        """Why nothing can be claimed; "": addresses can be claimed. It completes the sentence
        "address X is not on this node, and ..."."""
        self._claimed: set[str] = set()
        self._left_over: set[str] = set()
        """Addresses that may be claimed in the kernel although no Service needs them."""
        self._waits = False
        """Whether the reason why nothing can be claimed may pass: another process has the lock, or
        memory or descriptors are short."""
        self._lock: socket.socket | None = None
        self._busy = asyncio.Lock()
        """Held while netlink is used, so that a claim and a release of one address cannot overtake
        each other."""
        self._trouble = ""

    async def __aenter__(self) -> Self:
        if not self.reason:
            await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release(sorted(self._claimed | self._left_over))
        if self._lock is not None:
            self._lock.close()

    @property
    def claimed(self) -> Set[str]:
        """The addresses that this process holds at this moment."""
        return self._claimed

    @property
    def owned(self) -> bool:
        """Whether this process has the lock, and so no other uproxy has claims here."""
        return self._lock is not None

    async def claim(self, addresses: Sequence[str]) -> Mapping[str, str]:
        """Claim addresses; returns those that could not be claimed, with the reason (as
        `reason`)."""
        if not addresses:
            return {}
        async with self._busy:
            there = self._left_over.intersection(addresses)
            wanted = [each for each in addresses if each not in there]
            # If this is cancelled now, the thread still claims them. They are left over then, and
            # the end of the context, or `maintain`, releases them.
            self._left_over.update(wanted)
            failures = await _carried_out(self._calls.add, wanted)
            claimed = [each for each in addresses if each not in failures]
            self._claimed.update(claimed)
            self._left_over.difference_update(addresses)
        _log_addresses("claimed", claimed)
        return {address: explain(error) for address, error in failures.items()}

    async def release(self, addresses: Sequence[str]) -> None:
        """Release addresses. One that cannot be released is logged, and tried again by
        `maintain`. What is left in the end can be removed by `uproxy cleanup`."""
        if addresses:
            async with self._busy:
                await self._release(addresses)

    async def maintain(self, available: Callable[[], None], period: float = _PERIOD) -> None:
        """Keep restoring claims that another program has removed, and release those that could
        not be released earlier. `available` is called when addresses can be claimed after all."""
        while True:
            await asyncio.sleep(period)
            try:
                await self._maintain(available)
            except Exception as error:  # For example, a thread cannot be started.
                self._log_trouble(unexpected(error))

    async def _maintain(self, available: Callable[[], None]) -> None:
        if self._waits:
            await self._begin()
            if not self.reason:
                available()
            return
        if self._left_over:
            async with self._busy:  # Sorted inside: a claim under way may take one of them back.
                await self._release(sorted(self._left_over))
        if self._claimed:
            await self._restore()

    async def _release(self, addresses: Sequence[str]) -> None:
        failures = await _carried_out(self._calls.release, addresses)
        self._claimed.difference_update(addresses)
        new = failures.keys() - self._left_over
        self._left_over = (self._left_over - set(addresses)) | failures.keys()
        for address in sorted(new):
            log.warning("cannot release address %s: %s", address, failures[address].strerror)
        _log_addresses("released", [each for each in addresses if each not in failures])

    async def _begin(self) -> None:
        held: frozenset[str] = frozenset()
        try:
            refused = await asyncio.to_thread(self._calls.permission_error)
            if refused is None:
                self._lock = self._lock or await asyncio.to_thread(self._calls.take_lock)
                held = await asyncio.to_thread(self._calls.held)
        except Exception as error:
            refused = _as_os_error(error)
        # A process cannot gain CAP_NET_ADMIN later; everything else may pass.
        self._waits = refused is not None and refused.errno != errno.EPERM
        self.reason = explain(refused) if refused is not None else ""
        self._claimed.update(held)
        if held:
            log.info("took over %d addresses that an earlier run had claimed", len(held))

    async def _restore(self) -> None:
        async with self._busy:
            try:
                restored, failures = await run_to_completion(
                    _restored, self._calls, frozenset(self._claimed)
                )
            except OSError as error:
                restored, failures = frozenset(), {"claimed addresses": error}
        if restored:
            log.warning(
                "restored %d claimed addresses that another program had removed", len(restored)
            )
        first = next((f"{each}: {explain(why)}" for each, why in failures.items()), "")
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        self._log_trouble(first + more)

    def _log_trouble(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning(
                "cannot restore claimed addresses that another program removed: %s; retrying",
                trouble,
            )
        self._trouble = trouble


async def _carried_out(
    act: Callable[[Sequence[str]], Mapping[str, OSError]], addresses: Sequence[str]
) -> Mapping[str, OSError]:
    """Call `act` in a thread; returns the addresses for which it has failed."""
    try:
        return await run_to_completion(act, addresses)
    except Exception as error:
        return dict.fromkeys(addresses, _as_os_error(error))


def _as_os_error(error: Exception) -> OSError:
    if isinstance(error, OSError):
        return error
    log.error("unexpected netlink error", exc_info=error)
    return OSError(0, unexpected(error))


def _restored(
    calls: ClaimCalls, claimed: frozenset[str]
) -> tuple[frozenset[str], Mapping[str, OSError]]:
    """Claim again the addresses whose claims are gone; returns those that were claimed, and those
    that cannot be. Raises OSError.

    An address that an interface has got meanwhile is local already, so it is in neither.
    """
    missing = claimed - calls.held()
    if not missing:
        return missing, {}
    failures = calls.add(sorted(missing))
    return missing & calls.held(), failures


def explain(error: OSError) -> str:
    """Why an address could not be claimed, as the end of a sentence (see `Claims.reason`)."""
    if isinstance(error, Locked):
        return str(error.strerror)
    if error.errno == errno.EPERM:
        return UNPRIVILEGED
    if error.errno == errno.EACCES:
        return "IPv6 is disabled on the interface lo (net.ipv6.conf.lo.disable_ipv6)"
    return f"it cannot be claimed: {error.strerror}"


def _log_addresses(verb: str, addresses: Sequence[str]) -> None:
    if len(addresses) > 3:
        log.info("%s %d addresses", verb, len(addresses))
    elif addresses:
        log.info("%s %s", verb, ", ".join(addresses))
