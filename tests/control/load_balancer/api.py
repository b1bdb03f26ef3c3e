"""A fake API server, and how to ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.fake_api.server import FakeApi
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.control.load_balancer.ask import Ask, asking


@asynccontextmanager
async def api_server() -> AsyncIterator[tuple[FakeApi, Ask]]:
    async with FakeApi() as server, ApiClient(Access(origin="test", server=server.url)) as api:
        yield server, asking(api)
