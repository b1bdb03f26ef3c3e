"""An announcer, and another process of the same node that announces."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from tests.control.load_balancer.quiet_machine import QUIET
from tests.control.load_balancer.test_interface_addresses import V4, Kernel
from tests.control.load_balancer.test_route_announcer import until
from uproxy.config.settings import Config
from uproxy.control.load_balancer.announcer import Announcer, AnnouncingCalls
from uproxy.control.load_balancer.announcing import AnnouncerCalls, log_events, new_announcer
from uproxy.control.load_balancer.catalog import Catalog
from uproxy.control.load_balancer.served import Served
from uproxy.core.cluster.state import ClusterState
from uproxy.host.namespace_lock import ANNOUNCEMENTS, Locked


def announcer_with(kernel: Kernel, take_lock: Callable[[int], socket.socket]) -> Announcer:
    others = AnnouncingCalls(segments=QUIET.others.segments, take_lock=take_lock)
    served = Served(
        dict, lambda _: False, lambda _: False, str, owned=lambda: True, all_known=lambda: True
    )
    return new_announcer(
        Config(node_name="n1"),
        ClusterState(("test",), node_name="n1"),
        Catalog(()),
        served,
        log_events,
        AnnouncerCalls(addresses=kernel.calls, others=others),
    )


async def test_addresses_of_another_process_stay_when_this_one_stops() -> None:
    """It has found them on the interfaces, as those of a predecessor would be."""
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()

    def locked(_: int) -> socket.socket:
        loop.call_soon_threadsafe(tried.set)
        raise Locked(ANNOUNCEMENTS)

    kernel = Kernel()
    kernel.there = {V4: "eth0"}
    announcer = announcer_with(kernel, locked)
    async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(announcer.run())
        await tried.wait()
        await announcer.release()
        task.cancel()
    assert kernel.there == {V4: "eth0"}
    assert kernel.asked == []


async def test_what_a_predecessor_has_left_goes_when_this_one_stops() -> None:
    """However soon that is: nothing has been listed yet, and the program does not wait for long."""
    ours, theirs = socket.socketpair()
    kernel = Kernel()
    kernel.there = {V4: "eth0"}
    announcer = announcer_with(kernel, lambda _: ours)
    with theirs:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(announcer.run())
            await until(lambda: kernel.asked)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await announcer.release()
            task.cancel()
    assert kernel.there == {}
    assert ours.fileno() == -1, "the lock is given back"
