"""Access that is broken at the start, and found later."""

from __future__ import annotations

import pytest

from tests.fake_api.server import FakeApi
from tests.ports import free_port
from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import Candidates, candidate_at
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.deferred_client import DeferredClient
from uproxy.apiserver.failover_client import FailoverClient
from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.core.errors import SourceError

WHY = SourceError("kubeconfig k: no such file")


async def test_its_addresses_are_known_once_there_is_access() -> None:
    """Before that, there is none to protect from claims; afterwards there has to be."""
    found: list[ApiClient] = []

    def find() -> ApiClient:
        if not found:
            raise WHY
        return found[0]

    async with FakeApi() as server, DeferredClient(find, WHY) as api:
        with pytest.raises(ApiUnreachable, match="kubeconfig k: no such file"):
            async with api.send(Request("GET", "/version")):
                raise AssertionError("there is no answer")
        assert (api.addresses, api.access.server) == ((), "not known yet")
        assert not api.learn(["192.0.2.1:6443"])
        found.append(ApiClient(Access(origin="a test", server=server.url)))
        async with api.send(Request("GET", "/version")) as answer:
            assert answer.status == 200
        assert [each.server for each in api.addresses] == [server.url]
        assert api.access.server == server.url


async def test_what_it_finds_may_have_several_addresses() -> None:
    access = Access(origin="a test", in_cluster=True, server=f"https://127.0.0.1:{free_port()}")
    given = candidate_at(access, f"127.0.0.1:{free_port()}", "a test")
    candidates = Candidates(access, [given])
    async with DeferredClient(lambda: FailoverClient(access, candidates), WHY) as api:
        with pytest.raises(ApiUnreachable):
            async with api.send(Request("GET", "/version")):
                raise AssertionError("there is no answer")
        assert api.learn(["192.0.2.1:6443"])
        assert len(api.addresses) == 3
