"""Which clients get compressed answers."""

from __future__ import annotations

import pytest
from aiohttp import hdrs, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from uproxy.http.compression import accepts_gzip, compress


def _request(*accepted: str) -> web.Request:
    headers = CIMultiDict((hdrs.ACCEPT_ENCODING, each) for each in accepted)
    return make_mocked_request("GET", "/", headers)


@pytest.mark.parametrize(
    "accepted",
    [
        ["gzip"],
        ["gzip, deflate, br"],
        ["br;q=1.0, GZIP ; q=0.5"],
        ["gzip;q=0.001"],
        ["gzip;q=1"],
        ["br", "gzip"],
    ],
)
def test_a_client_that_accepts_gzip(accepted: list[str]) -> None:
    assert accepts_gzip(_request(*accepted))


@pytest.mark.parametrize(
    "accepted",
    [
        [],
        [""],
        ["identity"],
        ["gzip;q=0"],
        ["gzip; Q=0.000, identity"],
        ["gzip ;q=0.", "br"],
        ["x-gzipped"],
        [";;,=,"],
    ],
)
def test_a_client_that_does_not(accepted: list[str]) -> None:
    assert not accepts_gzip(_request(*accepted))


@pytest.mark.parametrize("accepted", ["gzip", "gzip;q=0"])
def test_caches_are_told_that_it_depends_on_the_client(accepted: str) -> None:
    response = web.Response(body=b"{}")
    compress(_request(accepted), response)
    assert response.headers[hdrs.VARY] == hdrs.ACCEPT_ENCODING
    assert response.compression is (accepted == "gzip")
