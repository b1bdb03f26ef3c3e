"""What a worker tells of its counters."""

from __future__ import annotations

import asyncio

from uproxy.core.flows.counters import Counters, DropReason
from uproxy.core.route import ServicePortName
from uproxy.dataplane.context import Context
from uproxy.dataplane.count_reports import Counting
from uproxy.dataplane.reactor import Reactor
from uproxy.net.messages import Settings

NAME = ServicePortName("default", "dns", "dns", "UDP")
SETTINGS = Settings(
    worker=0,
    workers=1,
    max_flows=1000,
    udp_timeout=60.0,
    tcp_idle_timeout=60.0,
    half_close_timeout=60.0,
)


async def test_what_is_not_taken_after_it_was_told_makes_no_sum_go_back() -> None:
    reactor = Reactor(asyncio.get_running_loop())
    context = Context(reactor, SETTINGS, lambda: 0.5)
    counting = Counting(context)
    counters = context.ports.get(NAME).counters
    counters.flows = counters.active = 1
    counters.client_datagrams, counters.client_bytes = 3, 300
    told = Counters(dropped={})
    told.add(counting.changes({NAME})[0][1])
    # The last datagram was not decided yet: the kernel refuses it.
    counters.client_datagrams, counters.client_bytes = 2, 200
    counters.drop(DropReason.BUFFER_FULL)
    ((_, news),) = counting.changes({NAME})
    assert news == Counters(active=1, dropped={"buffer_full": 1})
    told.add(news)
    assert not counting.changes({NAME})
    counters.client_datagrams, counters.client_bytes = 4, 500
    told.add(counting.changes({NAME})[0][1])
    assert (told.client_datagrams, told.client_bytes) == (4, 500)
    reactor.close()


async def test_a_port_that_was_told_too_much_of_is_forgotten_as_well() -> None:
    reactor = Reactor(asyncio.get_running_loop())
    context = Context(reactor, SETTINGS, lambda: 0.5)
    counting = Counting(context)
    counters = context.ports.get(NAME).counters
    counters.client_datagrams = 3
    assert counting.changes({NAME})
    counters.client_datagrams = 2
    assert not counting.changes(())
    assert not context.ports.all
    reactor.close()
