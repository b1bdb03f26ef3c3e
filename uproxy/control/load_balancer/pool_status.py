"""Writes how many addresses are assigned and available into the status of IPAddressPool objects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.control.load_balancer.ask import MERGE_PATCH, Ask
from uproxy.core.allocation.holdings import PoolUsage
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.ip import Family
from uproxy.sources.kubernetes.watch_format import read_failure

log = logging.getLogger(__name__)

_PERIOD: Final = 1.0
"""Seconds between two rounds of writing. While many Services come, each changes the figures."""
_RETRY: Final = 30.0
_REFUSED: Final = "; grant patch on ipaddresspools/status in the group metallb.io"

Usage = Mapping[Family, PoolUsage]
Figures = dict[str, int]


class PoolStatusWriter:
    """One of the parts of the load balancer."""

    name = "writer of pool statuses"

    def __init__(
        self,
        ask: Ask,
        *,
        pools: Callable[[], Collection[ObjectName]],
        usage: Callable[[], Mapping[str, Usage]],
        leading: Callable[[], bool],
        period: float = _PERIOD,
        retry: float = _RETRY,
    ) -> None:
        """`pools` returns the names of the objects, `usage` the use of each pool by its name."""
        self._ask = ask
        self._pools = pools
        self._usage = usage
        self._leading = leading
        self._period = period
        self._retry = retry
        self._wake = asyncio.Event()
        self._written: dict[ObjectName, Figures] = {}
        self._logged: set[int] = set()
        """Refusals that were logged: one line for each kind is enough."""

    def object_changed(self, kind: type[Object], name: ObjectName) -> None:
        """Nothing depends on it."""

    def changed(self) -> None:
        """Nothing depends on it."""

    def usage_changed(self) -> None:
        """Addresses may have been handed out, or pools may have changed."""
        self._wake.set()

    async def release(self) -> None:
        """Nothing is held here."""

    async def run(self) -> None:
        """See Part."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            well = await self._write_all()
            if not well:
                self._wake.set()
            await asyncio.sleep(self._period if well else self._retry)

    async def _write_all(self) -> bool:
        """Write what has changed. Returns whether all of it was written."""
        if not self._leading():
            self._written.clear()  # Another process writes.
            return True
        usage, names, well = self._usage(), self._pools(), True
        self._written = {name: each for name, each in self._written.items() if name in names}
        for name in names:
            wanted = figures(usage[name.name]) if name.name in usage else None
            if wanted is not None and wanted != self._written.get(name) and self._leading():
                well = await self._write(name, wanted) and well
        return well

    async def _write(self, name: ObjectName, wanted: Figures) -> bool:
        path = f"/apis/metallb.io/v1beta1/namespaces/{name.namespace}/ipaddresspools/{name.name}"
        patch = {"status": wanted}
        request = Request("PATCH", f"{path}/status", body=patch, content_type=MERGE_PATCH)
        try:
            code, body = await self._ask(request)
        except ApiUnreachable as error:
            log.debug("cannot write the status of the IPAddressPool %s: %s", name, error)
            return False
        if code >= 300 and code != 404:
            reason = str(read_failure(body, code)) + (_REFUSED if code in (401, 403) else "")
            level = logging.DEBUG if code >= 500 or code in self._logged else logging.WARNING
            self._logged.add(code)
            log.log(level, "cannot write the status of the IPAddressPool %s: %s", name, reason)
            return False
        self._written[name] = wanted
        return True


def figures(usage: Usage) -> Figures:
    """The fields of the status, as MetalLB names them."""
    found = Figures()
    for family in ("IPv4", "IPv6"):
        used = usage.get(family, PoolUsage(0, 0))
        found[f"assigned{family}"] = used.assigned
        found[f"available{family}"] = used.available
    return found
