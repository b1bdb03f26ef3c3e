"""A client for tests of the fake API server itself."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from tests.fake_api.server import FakeApi


class Client:
    """Requests to a server, in a few words."""

    def __init__(self, server: FakeApi, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        async with self._session.request(
            method,
            self._server.url + path,
            data=json.dumps(body) if body else None,
            headers=headers,
        ) as answer:
            return answer.status, await answer.json()
