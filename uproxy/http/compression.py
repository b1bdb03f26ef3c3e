"""Compression of answers for clients that can read it."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

_REFUSED: Final = frozenset({"q=0", "q=0.", "q=0.0", "q=0.00", "q=0.000"})
"""Weights that mean "not acceptable" (RFC 9110, 12.4.2)."""


def accepts_gzip(request: web.BaseRequest) -> bool:
    """Whether the client names gzip, and does not refuse it (RFC 9110, 12.5.3).

    aiohttp looks for the word anywhere in the header, and so compresses for "gzip;q=0", too.
    """
    for each in ",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, ())).lower().split(","):
        coding, *parameters = (part.strip() for part in each.split(";"))
        if coding == "gzip":
            return _REFUSED.isdisjoint(parameters)
    return False


def compress(request: web.BaseRequest, response: web.Response) -> None:
    """Have the body compressed while it is sent, if the client accepts that."""
    response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    if accepts_gzip(request):
        response.enable_compression(web.ContentCoding.gzip)
