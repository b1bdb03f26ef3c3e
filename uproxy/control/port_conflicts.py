"""Says which other process has ports that uproxy needs, once for all of them, and whether a
kube-proxy has rules that take packets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from uproxy.config.settings import Address, Config
from uproxy.control.daemon import Daemon
from uproxy.control.environment import Environment
from uproxy.control.http_servers import HEALTH, METRICS
from uproxy.core.protocols import TCP
from uproxy.core.report.port_conflicts import Taken, conflict_text, own_port_text, rules_text
from uproxy.host.port_holders import KUBE_PROXY, UPROXY, Holder, Port
from uproxy.net.listening import is_taken

log = logging.getLogger(__name__)

_LOOK: Final = 0.5
"""Seconds between two looks at what has failed."""
_START: Final = 2.0
"""Seconds that a start gets to try everything, so that one line has it all."""
_PAUSE: Final = 5.0
"""Seconds after a search, which reads /proc: 0.1 s of CPU with 10,000 descriptors in use."""


class _Need(NamedTuple):
    """Something that cannot listen."""

    port: Port
    name: str
    is_frontend: bool


class _OwnServer(NamedTuple):
    """A server of this uproxy has the port: that of the health address, or of the metrics
    address."""

    name: str


class PortConflicts:
    """Looks for what is in the way while it runs."""

    def __init__(self, daemon: Daemon, environment: Environment) -> None:
        self._daemon = daemon
        self._find = environment.find_port_holders
        self._ask = environment.service_proxy_at
        self._find_rules = environment.find_other_proxies
        self._rules: Sequence[str] = ()
        """What is said of the rules of a kube-proxy, as they were at the start."""
        self._seen: frozenset[_Need] = frozenset()
        """What could not listen when that was looked at last."""
        self._known: frozenset[_Need] = frozenset()
        self._conflicts: Sequence[str] = ()
        self._kube_proxy_told = False

    @property
    def notes(self) -> Sequence[str]:
        """One line for each process that is in the way, and for rules that are."""
        return (*self._conflicts, *self._rules)

    async def run(self) -> None:
        """Look at what has failed until cancelled."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START):
                await self._daemon.reconciler.served_once.wait()
        self._seen = frozenset(self._needs())
        await self._look()
        # With a name of its own, uproxy serves what a kube-proxy leaves alone.
        if not self._daemon.config.service_proxy_name and not self._kube_proxy_told:
            await self._look_for_rules()
        while True:
            searched = await self._look()
            await asyncio.sleep(_PAUSE if searched else _LOOK)

    async def _look(self) -> bool:
        """Whether there was something new to explain."""
        now = frozenset(self._needs())
        # What fails for a moment only has no holder to be told of. It is in the way of itself, for
        # example, where it moves between an address and all addresses: workers close it later.
        needs, self._seen = now & self._seen, now
        if needs == self._known:
            return False
        news = needs - self._known
        self._known = needs
        await self._explain(needs, news)
        return True

    async def _explain(self, needs: frozenset[_Need], news: frozenset[_Need]) -> None:
        try:
            holders = await asyncio.to_thread(self._holders, needs)
        except Exception:
            log.exception("cannot find out who has the ports that are in use")
            return
        own = self._own_ports()
        by_holder: dict[Holder | _OwnServer, list[_Need]] = {}
        for need in sorted(needs):
            holder = holders.get(need.port, Holder())
            known = holder if holder.program else own.get(need.port, holder)
            by_holder.setdefault(known, []).append(need)
        self._kube_proxy_told = any(each.program == KUBE_PROXY for each in holders.values())
        apart = bool(self._daemon.config.service_proxy_name)
        self._conflicts = [
            _text(holder, theirs, apart=apart) for holder, theirs in by_holder.items()
        ]
        for text, theirs in zip(self._conflicts, by_holder.values(), strict=True):
            if not news.isdisjoint(theirs):
                log.warning("%s", text)

    async def _look_for_rules(self) -> None:
        """Once: those of a kube-proxy, also of one that has stopped."""
        found = await asyncio.to_thread(self._find_rules)
        self._rules = [rules_text(each) for each in found if each.startswith(KUBE_PROXY)]
        for text in self._rules:
            log.warning("%s", text)

    def _holders(self, needs: frozenset[_Need]) -> Mapping[Port, Holder]:
        """Also those of which the process is not known, but which answer as service proxies do."""
        found = {need.port: Holder() for need in needs}
        found |= self._find(found)
        address = self._daemon.config.metrics_address
        metrics = Port(TCP, address.port) if address is not None else None
        if address is None or metrics not in found or found[metrics].program:
            return found
        if metrics in self._own_ports():
            return found  # This uproxy would answer itself.
        program = self._ask(_reachable(address), address.port)
        servers = {need.port for need in needs if not need.is_frontend}
        for port, holder in found.items():
            # A kube-proxy opens no ports of Services.
            if not holder.program and (program == UPROXY or port in servers):
                found[port] = holder._replace(program=program)
        return found

    def _own_ports(self) -> Mapping[Port, _OwnServer]:
        """Those at which servers of this uproxy listen. A Service may ask for one of them."""
        return {
            Port(TCP, address.port): _OwnServer(server.name)
            for server in self._daemon.servers
            for address in server.bound
        }

    def _needs(self) -> Iterator[_Need]:
        reconciler = self._daemon.reconciler
        for frontend, failure in reconciler.failures.items():
            route = reconciler.table.routes.get(frontend)
            if is_taken(failure.reason) and route is not None:
                port = Port(frontend.protocol, frontend.port)
                yield _Need(port, f"{frontend} for {route.owner}", is_frontend=True)
        for name, reason in reconciler.health_check_failures.items():
            check = reconciler.table.health_checks.get(name)
            if is_taken(reason) and check is not None:
                yield _Need(Port(TCP, check.port), f"the health check of {name}", is_frontend=False)
        for server in self._daemon.servers:
            address = _addresses(self._daemon.config)[server.name]
            if is_taken(server.reason) and address is not None:
                yield _Need(
                    Port(TCP, address.port), f"the {server.name} address", is_frontend=False
                )


def _text(holder: Holder | _OwnServer, needs: Sequence[_Need], *, apart: bool) -> str:
    taken = Taken(
        [each.name for each in needs if each.is_frontend],
        [each.name for each in needs if not each.is_frontend],
    )
    if isinstance(holder, _OwnServer):
        return own_port_text(holder.name, taken)
    return conflict_text(*holder, taken, apart=apart)


def _addresses(config: Config) -> Mapping[str, Address | None]:
    return {HEALTH: config.healthz_address, METRICS: config.metrics_address}


def _reachable(address: Address) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
