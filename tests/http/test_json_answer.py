"""A JSON document for several clients: what each of them gets."""

from __future__ import annotations

import gzip

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from uproxy.http.json_answer import JsonAnswer

_BODY = b'{"a": 1}'


def _ask(**headers: str) -> web.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JsonAnswer(_BODY).response(make_mocked_request("GET", "/", named))


def test_it_is_compressed_for_clients_that_can_read_that() -> None:
    answer = _ask(Accept_Encoding="gzip, deflate, br")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert isinstance(answer.body, bytes)
    assert gzip.decompress(answer.body) == _BODY


def test_others_get_it_as_it_is() -> None:
    answer = _ask()
    assert "Content-Encoding" not in answer.headers
    assert answer.body == _BODY


def test_a_client_that_has_it_gets_it_in_no_encoding() -> None:
    tag = _ask().headers["ETag"]
    answer = _ask(If_None_Match=tag, Accept_Encoding="gzip")
    assert (answer.status, answer.body) == (304, None)
    assert answer.headers["ETag"] == tag


def test_a_client_that_refuses_gzip_gets_it_as_it_is() -> None:
    answer = _ask(Accept_Encoding="gzip;q=0")
    assert "Content-Encoding" not in answer.headers
    assert answer.body == _BODY


def test_caches_are_told_the_same_without_the_content() -> None:
    tag = _ask().headers["ETag"]
    assert _ask(If_None_Match=tag).headers["Vary"] == "Accept-Encoding"
