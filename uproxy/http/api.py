"""Everything on the metrics address: /metrics, /proxyMode, /healthz, the status as JSON and as a
page. For GET and HEAD only; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

import msgspec
from aiohttp import web

import uproxy
from uproxy.core.printable import printable_json
from uproxy.core.status import Status
from uproxy.core.telemetry import Telemetry
from uproxy.http.metrics import metrics_page
from uproxy.http.view import parse_filter, status_view

Page = Callable[[web.Request], Awaitable[web.Response]]

_NOSNIFF = {"X-Content-Type-Options": "nosniff"}
_FRESH = {"Cache-Control": "no-store"}
_PAGE_POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; "
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    )
}
"""The page loads nothing and talks to nobody but its own server."""


def api_app(
    status: Callable[[], Status], telemetry: Telemetry, *, version: str = uproxy.__version__
) -> web.Application:
    """Serves at any time, also before the first sync. `status` is asked for each request."""
    app = web.Application()
    for path, page in (
        ("/", _file("page.html", "text/html")),
        ("/metrics", metrics_page(telemetry, status, version=version)),
        ("/proxyMode", _text("userspace")),
        ("/healthz", _text("ok")),
        ("/api/v1/routes", _routes(status)),
    ):
        app.router.add_get(path, page)
    return app


def _text(text: str) -> Page:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text=text, headers=_NOSNIFF)

    return page


def _file(name: str, content_type: str) -> Page:
    body = resources.files(__package__).joinpath(name).read_bytes()

    async def page(_: web.Request) -> web.Response:
        return web.Response(
            body=body,
            content_type=content_type,
            charset="utf-8",
            headers=_NOSNIFF | _FRESH | _PAGE_POLICY,
        )

    return page


def _routes(status: Callable[[], Status]) -> Page:
    async def page(request: web.Request) -> web.Response:
        try:
            wanted = parse_filter(request.query)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n", headers=_NOSNIFF)
        response = web.Response(
            body=printable_json(msgspec.json.encode(status_view(status(), wanted))),
            content_type="application/json",
            headers=_NOSNIFF | _FRESH,
        )
        response.enable_compression()
        return response

    return page
