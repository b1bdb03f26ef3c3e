"""A machine on which nothing can be announced, for tests of everything else."""

from __future__ import annotations

import asyncio
import socket
from typing import Self

from uproxy.control.load_balancer.announcer import AnnouncingCalls
from uproxy.control.load_balancer.announcing import AnnouncerCalls
from uproxy.control.load_balancer.interface_addresses import AddressCalls
from uproxy.control.load_balancer.local_segments import SegmentCalls


class _Silence:
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def wait(self, at_most: float) -> bool:
        await asyncio.Event().wait()
        return False


def _refuse(_: int) -> socket.socket:
    raise PermissionError


QUIET = AnnouncerCalls(
    addresses=AddressCalls(put=lambda _: {}, renew=lambda _: {}, remove=lambda _: {}, held=dict),
    others=AnnouncingCalls(segments=SegmentCalls(read=dict, monitor=_Silence), take_lock=_refuse),
)
