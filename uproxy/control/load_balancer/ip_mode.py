"""Which ipMode is written: VIP, unless another service proxy serves this node as well.

Such a proxy captures traffic to every address in a status with the mode VIP on its own node, and
then nothing of it arrives here. With the mode Proxy (KEP-1860) it lets that traffic pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from uproxy.core.allocation.status_patch import VIP
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.host.threads import run_to_completion

log = logging.getLogger(__name__)

PROXY: Final = "Proxy"
AUTO: Final = "auto"
_PERIOD: Final = 300.0
"""Seconds between two looks. Service proxies are installed and removed by people."""


class IPModeChoice:
    """One of the parts of the load balancer."""

    name = "detection of other service proxies"

    def __init__(
        self,
        setting: str,
        find: Callable[[], Sequence[str]],
        changed: Callable[[], None],
        period: float = _PERIOD,
    ) -> None:
        """`find` names the other service proxies of this machine. It may block, and is called in a
        thread. `changed` is called when `mode` has changed, and when it is known first."""
        self.mode = VIP if setting == AUTO else setting
        self.known = setting != AUTO
        """Whether `mode` is the result of a look, or of the settings."""
        self._find = find
        self._changed = changed
        self._period = period

    def object_changed(self, kind: type[Object], name: ObjectName) -> None:
        """Nothing depends on it."""

    def changed(self) -> None:
        """Nothing depends on it."""

    async def release(self) -> None:
        """Nothing is held here."""

    async def run(self) -> None:
        """See Part."""
        if self.known:
            await asyncio.Event().wait()
        while True:
            try:
                self._note(await run_to_completion(self._find))
            finally:
                # Addresses are handed out all the same.
                if not self.known:
                    self.known = True
                    self._changed()
            await asyncio.sleep(self._period)

    def _note(self, found: Sequence[str]) -> None:
        mode = PROXY if found else VIP
        if mode == self.mode:
            return
        self.mode = mode
        if found:
            log.info("addresses of load balancers get ipMode Proxy, because of %s", found[0])
        else:
            log.info("addresses of load balancers get ipMode VIP: no other service proxy is left")
        if self.known:
            self._changed()
