"""The announced addresses on the interfaces of this node: put there, renewed, and taken off."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from uproxy.host import announced_addresses
from uproxy.host.announced_addresses import Held

log = logging.getLogger(__name__)

_RETRY: Final = 60.0
"""Seconds until an address that an interface could not be given is tried again. Meanwhile another
node announces it, and nothing would be gained by taking it back."""
_RETRY_SOON: Final = 1.0
"""The same, if netlink could not be used at all, or there is no such interface. It was renamed or
is being made anew then, or is gone for good, which the next reading of the interfaces shows."""
_EARLY: Final = 0.1
"""Seconds by which a renewal may come too early: it is tied to other things that are done."""

Failures = Mapping[str, OSError]


@dataclass(frozen=True, kw_only=True)
class AddressCalls:
    """What is asked of the kernel, so that tests can put a model in its place. Each call takes a
    few milliseconds at most, and is made on the event loop: a loop that does not turn must not
    renew anything."""

    put: Callable[[Mapping[str, str]], Failures] = announced_addresses.put
    renew: Callable[[Mapping[str, str]], Failures] = announced_addresses.renew
    remove: Callable[[Mapping[str, str]], Failures] = announced_addresses.remove
    held: Callable[[], Mapping[str, Held]] = announced_addresses.held


_LINUX: Final = AddressCalls()


class InterfaceAddresses:
    """Knows which addresses the interfaces have from us."""

    def __init__(self, calls: AddressCalls = _LINUX) -> None:
        self.held: Mapping[str, str] = {}
        """The interface of each address."""
        self._calls = calls
        self._failed: dict[str, tuple[str, float]] = {}
        """Why an interface could not be given an address, and when that is tried again."""
        self._renewed_at = 0.0

    @property
    def failures(self) -> Mapping[str, str]:
        """Addresses that no interface could be given, with the reason."""
        return {address: reason for address, (reason, _) in self._failed.items()}

    def take_over(self) -> None:
        """Treat what an earlier process has left as if this one had put it there."""
        try:
            found = self._calls.held()
        except OSError as error:
            log.warning("cannot read the addresses that were announced: %s", error)
            return
        self.held = {address: each.interface for address, each in found.items()}

    def become(self, wanted: Mapping[str, str], now: float) -> None:
        """Have exactly these addresses, each on its interface."""
        for address in [each for each, (_, due) in self._failed.items() if now >= due]:
            del self._failed[address]
        gone = {a: name for a, name in self.held.items() if wanted.get(a) != name}
        new = {
            a: name
            for a, name in wanted.items()
            if self.held.get(a) != name and a not in self._failed
        }
        # First: an address that only changes its interface is off the old one then.
        self._remove(gone)
        self._put(new, now)

    def renew(self, now: float) -> None:
        """Renew the lifetimes, if that is due."""
        if now - self._renewed_at < announced_addresses.renewal_period(self.held) - _EARLY:
            return
        try:
            failures = self._calls.renew(self.held) if self.held else {}
        except OSError as error:
            # Descriptors are short, for example. There is time for several more attempts.
            log.warning("cannot renew announced addresses: %s", error)
            return
        self._renewed_at = now
        self._lost(failures, now)

    def _put(self, addresses: Mapping[str, str], now: float) -> None:
        if not addresses:
            return
        wait = _RETRY
        try:
            failures = self._calls.put(addresses)
        except OSError as error:
            failures, wait = dict.fromkeys(addresses, error), _RETRY_SOON
        self.held = {**self.held, **addresses}
        self._lost(failures, now, wait)
        _log("announcing", [each for each in addresses if each not in failures])

    def _remove(self, addresses: Mapping[str, str]) -> None:
        if not addresses:
            return
        # What cannot be removed is gone after its lifetime, as it is not renewed.
        self.held = {a: name for a, name in self.held.items() if a not in addresses}
        _log("no longer announcing", list(addresses))
        try:
            failures = self._calls.remove(addresses)
        except OSError as error:
            failures = dict.fromkeys(addresses, error)
        for address, why in failures.items():
            log.warning("cannot take %s off its interface: %s", address, why.strerror)

    def _lost(self, failures: Failures, now: float, wait: float = _RETRY) -> None:
        for address, error in failures.items():
            reason = f"cannot put it on {self.held[address]}: {error.strerror}"
            log.warning("cannot announce %s: %s", address, reason)
            soon = error.errno == errno.ENODEV
            self._failed[address] = (reason, now + (_RETRY_SOON if soon else wait))
        self.held = {a: name for a, name in self.held.items() if a not in failures}


def _log(verb: str, addresses: list[str]) -> None:
    if len(addresses) > 3:
        log.info("%s %d addresses", verb, len(addresses))
    elif addresses:
        log.info("%s %s", verb, ", ".join(addresses))
