"""Entity tags: a client that has an answer already gets "not modified" in its place."""

from __future__ import annotations

import hashlib

from aiohttp import ETag, hdrs, web


def tag_of(body: bytes) -> str:
    """The tag of some content."""
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def if_changed(request: web.Request, response: web.Response, tag: str = "") -> web.Response:
    """The response with a tag of its content, or 304 (Not Modified) if the client has that content.
    It must have a Cache-Control header that lets clients keep it. `tag`: if it is known already."""
    assert isinstance(response.body, bytes)
    tag = tag or tag_of(response.body)
    # Weak, since the content may be compressed on its way (RFC 9110, 8.8.3.3).
    response.etag = ETag(value=tag, is_weak=True)
    if all(each.value != tag for each in request.if_none_match or ()):
        return response
    # Those of the content that a 304 must have as well (RFC 9110, 15.4.5).
    kept = (hdrs.ETAG, hdrs.CACHE_CONTROL, hdrs.VARY)
    headers = {name: response.headers[name] for name in kept if name in response.headers}
    return web.Response(status=304, headers=headers)
