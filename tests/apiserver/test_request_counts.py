"""Requests to the API server are counted one by one, and timed."""

from __future__ import annotations

import pytest

from tests.fake_api.server import FakeApi
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.core.report.telemetry import RequestTelemetry


async def test_answers_and_failures() -> None:
    requests = RequestTelemetry()
    list_services = Request("GET", "/api/v1/services")
    async with FakeApi() as server:
        host = f"{server.host}:{server.port}"
        access = Access(origin="test", server=server.url, token="good")
        async with ApiClient(access, requests=requests) as api:
            async with api.send(list_services) as answer:
                assert answer.status == 200
            server.answer(429, on="services")
            async with api.send(list_services) as answer:
                assert answer.status == 429
            server.tokens = set()
            async with api.send(Request("POST", "/api/v1/services")) as answer:
                assert answer.status == 401
            await server.stop()
            with pytest.raises(ApiUnreachable):
                async with api.send(list_services):
                    pass
    assert requests.answers == {
        ("200", "GET", host): 1,
        ("429", "GET", host): 1,
        ("401", "POST", host): 2,
        ("<error>", "GET", host): 1,
    }
    assert {key: sum(each.counts) for key, each in requests.durations.items()} == {
        ("GET", host): 2,
        ("POST", host): 2,
    }
