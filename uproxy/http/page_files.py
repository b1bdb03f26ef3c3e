"""The status page: its files, under a policy by which a browser runs nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from importlib import resources
from typing import Final

from aiohttp import web

from uproxy.http.compression import compress
from uproxy.http.etags import if_changed

Page = Callable[[web.Request], Awaitable[web.Response]]

_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # A browser asks each time whether a file has changed, since another version may run by then.
    "Cache-Control": "no-cache",
}
"""The page loads nothing from elsewhere, talks to its own server only, and can make neither markup
nor code of text: with Trusted Types a browser refuses innerHTML and its like."""
_INDEX: Final = "index.html"


def page_files() -> Iterator[tuple[str, Page]]:
    """What is served on which path."""
    for each in sorted(resources.files(__package__).joinpath("page").iterdir(), key=str):
        kind = _TYPES.get(each.name[each.name.rfind(".") :])
        if kind is not None:
            path = "/" if each.name == _INDEX else f"/page/{each.name}"
            yield path, _file(each.read_bytes(), kind)


def _file(body: bytes, content_type: str) -> Page:
    async def page(request: web.Request) -> web.Response:
        response = web.Response(
            body=body, content_type=content_type, charset="utf-8", headers=_HEADERS
        )
        compress(request, response)
        return if_changed(request, response)

    return page
