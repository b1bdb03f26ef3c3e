"""What a worker has counted since it was last told to the control process."""

from __future__ import annotations

from collections.abc import Container, Iterable

from uproxy.core.flows.counters import Counters
from uproxy.core.route import Backend, ServicePortName
from uproxy.dataplane.context import Context

_NOTHING = Counters()


class Counting:
    """Remembers what was told."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._told: dict[ServicePortName, Counters] = {}

    def changes(self, served: Container[ServicePortName]) -> list[tuple[ServicePortName, Counters]]:
        """What was counted since the last call. Ports that are not `served` and have no flow are
        forgotten once all is told.

        A datagram is counted when it is given to the ring, and no longer if the kernel does not
        take it. Sums that went back would be taken for ones that have begun anew, so what was told
        of it in between is made up for by the next ones.
        """
        changes = []
        gone = set()
        for name, port in self._context.ports.all.items():
            before = self._told.get(name, _NOTHING)
            if port.counters != before and (news := _news(port.counters, before)) is not None:
                changes.append((name, news))
                told = self._told[name] = _copy(before)
                told.add(news)
                told.active = news.active
            elif name not in served and port.counters.active == 0:
                gone.add(name)
        self._context.ports.forget(gone)
        for name in gone:
            self._told.pop(name, None)
        return changes

    def failing(
        self, changes: Iterable[tuple[ServicePortName, Counters]]
    ) -> list[tuple[ServicePortName, tuple[Backend, ...]]]:
        """Backends that have not answered, of the ports among the changes where some have not."""
        ports = self._context.ports.all
        return [
            (name, ports[name].balancer.failing())
            for name, counters in changes
            if counters.dial_failures and name in ports
        ]


def _copy(counters: Counters) -> Counters:
    copy = Counters(dropped={})
    copy.add(counters)
    return copy


def _news(now: Counters, before: Counters) -> Counters | None:
    """What was added since; `active` is absolute. None: nothing."""
    news = Counters(
        flows=now.flows - before.flows,
        active=now.active,
        client_bytes=max(now.client_bytes - before.client_bytes, 0),
        backend_bytes=max(now.backend_bytes - before.backend_bytes, 0),
        client_datagrams=max(now.client_datagrams - before.client_datagrams, 0),
        backend_datagrams=max(now.backend_datagrams - before.backend_datagrams, 0),
        dial_failures=now.dial_failures - before.dial_failures,
        retries=now.retries - before.retries,
        masqueraded=now.masqueraded - before.masqueraded,
        dials=now.dials - before.dials,
        dropped={
            reason: count - before.dropped.get(reason, 0)
            for reason, count in now.dropped.items()
            if count != before.dropped.get(reason, 0)
        },
    )
    return None if news == Counters(active=before.active) else news
