"""Frames on the network segments of this machine: addresses are announced there, and looked for.

Without CAP_NET_RAW there are no frames: nothing is heard, an address is looked for by means of the
kernel's own neighbour table, and only IPv4 addresses are announced, in one form. The kernel answers
for the addresses of interfaces all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final, Self

from uproxy.host import frames
from uproxy.host.kernel_announcement import announce_by_kernel
from uproxy.host.kernel_probe import ask_kernel
from uproxy.host.segments import Segment
from uproxy.host.tap import Tap, packet_socket

log = logging.getLogger(__name__)

UNPRIVILEGED: Final = (
    "without CAP_NET_RAW, neighbours are told of announced IPv4 addresses only, and announcements "
    "of other machines are not heard"
)

_ASK_EVERY: Final = 0.2
_PATIENCE: Final = 0.3
"""Seconds. A probe asks twice by default, as a frame may be lost. An address whose node has died is
not taken over before the silence has lasted for as long, so more would make every fail-over longer
(decision 0018)."""

OnHeard = Callable[[str, str, str], None]
"""Called with an address, the link-layer address of another machine that says it has the address,
and the name of the interface on which it was heard."""


class Wire:
    """Announces addresses, asks for them, and hears who has them.

    An async context manager. Interfaces may vanish, change their names and return: `follow` is to
    be called with the segments that there are then.
    """

    def __init__(self, on_heard: OnHeard) -> None:
        self._on_heard = on_heard
        self.reason = ""
        """Why there are no frames here; "" if there are."""
        self._segments: Mapping[str, Segment] = {}
        self._own: frozenset[str] = frozenset()
        """The link-layer addresses of this machine. A switch or a second interface in the same
        subnet brings our own frames back."""
        self._places: Mapping[str, str] = {}
        self._taps: dict[str, Tap] = {}
        self._probes: dict[tuple[str, str], asyncio.Future[str]] = {}
        """By address and interface: whether another machine has answered."""
        self._troubles: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        try:
            packet_socket().close()
        except PermissionError:
            self.reason = UNPRIVILEGED
        except OSError as error:
            self.reason = f"neighbours cannot be told of announced addresses: {error.strerror}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self._taps):
            self._drop(name)

    @property
    def possible(self) -> bool:
        """Whether there are frames here."""
        return not self.reason

    def follow(self, places: Mapping[str, str], segments: Mapping[str, Segment]) -> None:
        """Listen for addresses, each on the interface that `places` names, and for no others.
        `segments` are all that this machine has."""
        self._places, self._segments = dict(places), segments
        self._own = frozenset(each.mac for each in segments.values() if each.mac)
        if not self.possible:
            return
        wanted: dict[str, set[str]] = defaultdict(set)
        for address, interface in [*places.items(), *self._probes]:
            wanted[interface].add(address)
        for name in self._taps.keys() - wanted.keys():
            self._drop(name)
        for name, addresses in wanted.items():
            self._listen(name, addresses)

    def announce(self, address: str, interface: str) -> bool:
        """Tell all neighbours once that this machine has an address, which must be followed there;
        returns whether it was possible."""
        segment, tap = self._segments.get(interface), self._taps.get(interface)
        if segment is None or not segment.mac:
            return False
        if not self.possible:
            return announce_by_kernel(address, interface, segment)
        if tap is None:
            return False
        made = frames.announcements(address, segment.mac, segment.link_local)
        sent = [tap.send(address, each) for each in made]
        return all(sent)

    async def probe(self, address: str, interface: str, patience: float = _PATIENCE) -> str | None:
        """Ask which machine has an address; returns the link-layer address of another one that
        answers, or None if none does within `patience` seconds."""
        segment = self._segments.get(interface)
        if segment is None or not segment.arp:
            return None
        if not self.possible:
            mac = await ask_kernel(address, interface, segment.index, patience)
            return None if mac in self._own else mac
        key = (address, interface)
        answer = self._probes.setdefault(key, asyncio.get_running_loop().create_future())
        try:
            tap = self._listen(interface, {address}, more=True)
            return await self._asked(tap, address, segment, answer, patience)
        finally:
            if self._probes.get(key) is answer:
                del self._probes[key]

    async def _asked(
        self,
        tap: Tap | None,
        address: str,
        segment: Segment,
        answer: asyncio.Future[str],
        patience: float,
    ) -> str | None:
        question = frames.probe(address, segment.mac, segment.link_local)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while True:
                    if tap is not None:
                        tap.send(address, question)
                    done, _ = await asyncio.wait([answer], timeout=_ASK_EVERY)
                    if done:
                        return answer.result()
        return None

    def _listen(self, name: str, addresses: set[str], *, more: bool = False) -> Tap | None:
        """Listen on an interface for addresses, or for `more` than those so far. None if that is
        impossible now, because the interface has just vanished for example."""
        segment, tap = self._segments.get(name), self._taps.get(name)
        if tap is not None and (segment is None or segment.index != tap.index):
            self._drop(name)
            tap = None
        if segment is None or not segment.arp:
            return None
        try:
            if tap is None:
                tap = self._taps[name] = Tap(name, segment.index, self._heard)
            tap.listen(tap.addresses | addresses if more else addresses)
        except OSError as error:
            self._drop(name)
            self._tell(name, error.strerror or str(error))
            return None
        self._troubles.pop(name, None)
        return tap

    def _drop(self, name: str) -> None:
        tap = self._taps.pop(name, None)
        if tap is not None:
            tap.close()

    def _heard(self, heard: frames.Heard, interface: str) -> None:
        if heard.mac in self._own:
            return
        answer = self._probes.get((heard.address, interface))
        if answer is not None and not answer.done():
            answer.set_result(heard.mac)
        if self._places.get(heard.address) == interface:
            self._on_heard(heard.address, heard.mac, interface)

    def _tell(self, interface: str, trouble: str) -> None:
        if self._troubles.get(interface) != trouble:
            log.warning("cannot listen for announced addresses on %s: %s", interface, trouble)
        self._troubles[interface] = trouble
