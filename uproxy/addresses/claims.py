"""The addresses that this process has claimed for Services."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Mapping, Sequence, Set
from typing import Self

from uproxy.addresses import routes
from uproxy.addresses.lock import Locked, take_lock

log = logging.getLogger(__name__)

NEVER = "--claim-addresses is never"
UNPRIVILEGED = "claiming it needs CAP_NET_ADMIN"


class Claims:
    """Claims and releases, as an async context manager. Netlink is spoken to in a thread, a whole
    batch at a time.

    Claims outlive a process that is killed, and belong to the next one then: what that does not
    want is for its owner to release. The end of the context releases all; listeners go first.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.reason = "" if enabled else NEVER
        """Why nothing can be claimed; "" if something can. Completes "X is not on this node, "."""
        self._claimed: set[str] = set()
        self._lock: socket.socket | None = None

    async def __aenter__(self) -> Self:
        if not self.reason:
            await asyncio.to_thread(self._begin)
        if self._claimed:
            log.info("%d claimed addresses of an earlier run are taken over", len(self._claimed))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release(sorted(self._claimed))
        if self._lock is not None:
            self._lock.close()

    @property
    def claimed(self) -> Set[str]:
        """Addresses that we hold, at any moment."""
        return self._claimed

    async def claim(self, addresses: Sequence[str]) -> Mapping[str, str]:
        """Claim addresses; returns those that could not be, with the reason (see `reason`)."""
        if not addresses:
            return {}
        try:
            failures = await asyncio.to_thread(routes.add_claims, addresses)
        except OSError as error:
            failures = dict.fromkeys(addresses, error)
        self._claimed.update(each for each in addresses if each not in failures)
        _tell("claimed", [each for each in addresses if each not in failures])
        return {address: explain(error) for address, error in failures.items()}

    async def release(self, addresses: Sequence[str]) -> None:
        """Release addresses. What cannot be released is logged, and forgotten: `uproxy cleanup`
        finds it."""
        if not addresses:
            return
        try:
            failures = await asyncio.to_thread(routes.release_claims, addresses)
        except OSError as error:
            failures = dict.fromkeys(addresses, error)
        self._claimed.difference_update(addresses)
        for address, why in failures.items():
            log.warning("cannot release address %s: %s", address, why.strerror)
        _tell("released", [each for each in addresses if each not in failures])

    def _begin(self) -> None:
        try:
            refused = routes.may_claim()
            if refused is None:
                self._lock = take_lock()
                self._claimed.update(routes.held_claims())
        except OSError as error:
            refused = error
        if refused is not None:
            self.reason = explain(refused)


def explain(error: OSError) -> str:
    """Why an address could not be claimed, as the end of a sentence."""
    if isinstance(error, Locked):
        return str(error.strerror)
    if error.errno == errno.EPERM:
        return UNPRIVILEGED
    if error.errno == errno.EACCES:
        return "IPv6 is disabled on the interface lo (net.ipv6.conf.lo.disable_ipv6)"
    return f"it cannot be claimed: {error.strerror}"


def _tell(verb: str, addresses: Sequence[str]) -> None:
    if len(addresses) > 3:
        log.info("%s %d addresses", verb, len(addresses))
    elif addresses:
        log.info("%s %s", verb, ", ".join(addresses))
