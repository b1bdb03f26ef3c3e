"""/readyz: whether clients of this node are served as they should be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from uproxy.core.printable import printable
from uproxy.core.report.readiness import Reason

Notes = Callable[[], Sequence[Reason]]
"""Conditions that need attention although no health check fails."""


def readyz_page(
    not_ready: Callable[[], Sequence[Reason]],
    notes: Notes,
    *,
    lines_of: Callable[[Sequence[Reason]], Sequence[str]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """`lines_of` makes the lines to show of reasons and notes: their kinds, or their texts."""

    async def page(_: web.Request) -> web.Response:
        reasons = not_ready()
        lines = [*(lines_of(reasons) if reasons else ("ok",)), *lines_of(notes())]
        text = "ok" if lines == ["ok"] else "".join(f"{printable(line)}\n" for line in lines)
        return web.Response(
            status=503 if reasons else 200, text=text, headers={"X-Content-Type-Options": "nosniff"}
        )

    return page
