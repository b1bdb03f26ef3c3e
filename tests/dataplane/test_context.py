"""What the flows of one worker share."""

from __future__ import annotations

import asyncio

import pytest

from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.dataplane import context
from uproxy.dataplane.context import Context
from uproxy.dataplane.reactor import Reactor
from uproxy.net.messages import Settings

HERE = Backend("127.0.0.1", 53)


async def test_clients_that_are_remembered_are_limited_over_all_services(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flood with invented addresses takes 20 MiB of each Service with affinity."""
    monkeypatch.setattr(context, "PINS", 100)
    monkeypatch.setattr(context, "FORGOTTEN", 60)
    settings = Settings(
        worker=0,
        workers=1,
        max_flows=1000,
        udp_timeout=60.0,
        tcp_idle_timeout=60.0,
        half_close_timeout=60.0,
    )
    reactor = Reactor(asyncio.get_running_loop())
    try:
        made = Context(reactor, settings, lambda: 0.5)
        balancers, names = [], []
        for number, clients in enumerate((10, 90, 80)):
            owner = ServicePortName("default", f"s{number}", "", "UDP")
            route = Route(
                frontend=Frontend("UDP", "10.96.0.1", number + 1),
                owner=owner,
                kind=FrontendKind.CLUSTER_IP,
                backends=(HERE,),
                affinity_timeout=1000,
            )
            names.append(owner)
            balancers.append(made.port(owner).balancer)
            for client in range(clients):
                balancers[-1].pin(route, HERE, f"192.0.2.{client}", 1.0)
        made.forget_clients(names)
        assert sum(each.pins for each in balancers) == 120
        made.forget_clients(())
        assert [each.pins for each in balancers] == [10, 45, 45]
        made.forget({names[0]})
        made.forget_clients(names)
        assert [each.pins for each in balancers] == [10, 45, 45]
    finally:
        reactor.close()
