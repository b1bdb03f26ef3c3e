"""Short requests to the API server, each with an answer that is read at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from uproxy.apiserver.request import ApiServer, Request
from uproxy.apiserver.unreachable import ApiUnreachable

MERGE_PATCH: Final = "application/merge-patch+json"
_MOST: Final = 4 * 1024 * 1024
"""Bytes of an answer, which is an object."""
_PATIENCE: Final = 2.5
"""Seconds for a whole exchange. It is shorter than the time between the moment at which a leader
stops and that at which another may begin, so that nothing of the former arrives later."""

Ask: TypeAlias = Callable[[Request], Awaitable[tuple[int, bytes]]]
"""Sends a request; returns the status of the answer, and its body. Raises ApiUnreachable."""


def asking(api: ApiServer, patience: float = _PATIENCE) -> Ask:
    """How to ask this server."""

    async def ask(request: Request) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(patience), api.send(request) as answer:
                return answer.status, await answer.read(_MOST)
        except TimeoutError:
            raise ApiUnreachable("no answer in time") from None

    return ask
