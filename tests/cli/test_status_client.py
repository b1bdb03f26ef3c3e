"""Getting a status: from uproxy, from another server, and where there is no server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import click
import msgspec
import pytest

from tests.http.statuses import FULL
from tests.ports import free_port
from uproxy.cli import status_client
from uproxy.cli.status_client import NoStatus, base_url, fetch, fetch_both
from uproxy.core.report.status_format import Filter, status_view

VIEW = status_view(FULL, Filter())


def said(field: bytes) -> bytes:
    """A status that begins with an odd field."""
    return b"{" + field + b"," + msgspec.json.encode(VIEW)[1:]


@contextmanager
def answering(code: int, body: bytes, asked: list[str], **headers: str) -> Iterator[str]:
    """A server that gives one answer to everything; its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        pytest.param(Filter(), "/api/v1/routes", id="everything"),
        pytest.param(
            Filter(namespace="a", service="b"),
            "/api/v1/routes?namespace=a&service=b",
            id="a Service",
        ),
        pytest.param(
            Filter(namespace="a&b c"), "/api/v1/routes?namespace=a%26b+c", id="odd characters"
        ),
    ],
)
def test_fetch(wanted: Filter, path: str) -> None:
    asked: list[str] = []
    body = msgspec.json.encode(VIEW)
    with answering(200, body, asked) as url:
        assert fetch_both(url, wanted) == (VIEW, body)
    assert asked == [path]


def test_a_later_version_may_have_more_fields() -> None:
    said = msgspec.json.decode(msgspec.json.encode(VIEW))
    with answering(200, msgspec.json.encode(said | {"weather": "fair"}), []) as url:
        assert fetch(url) == VIEW


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with answering(200, msgspec.json.encode(VIEW), []) as url:
        assert fetch(url) == VIEW


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        pytest.param(200, b"<html>", "is not uproxy", id="a web page"),
        pytest.param(200, b'{"node": 7}', "another version", id="other JSON"),
        pytest.param(404, b"page not found", "HTTP 404", id="kube-proxy"),
        pytest.param(500, b"", "HTTP 500", id="in trouble"),
        pytest.param(400, b"unknown state 'x'\n", "unknown state 'x'", id="a bad question"),
        pytest.param(200, said(b'"more":' + b"[" * 99_999), "not uproxy", id="too deep"),
        pytest.param(200, said(b'"node":"\xff\x9b"'), "another version", id="no UTF-8"),
        pytest.param(200, said(b'"node":"\x1b[31m"'), "another version", id="raw controls"),
        pytest.param(200, said(b'"workers":[{"index":1e999}]'), "not uproxy", id="too large"),
        pytest.param(200, said(b'"synced":' + b"9" * 9999), "not uproxy", id="too long a number"),
        pytest.param(302, b"", "HTTP 302", id="sent elsewhere"),
    ],
)
def test_an_answer_that_is_not_a_status(code: int, body: bytes, words: str) -> None:
    with answering(code, body, []) as url, pytest.raises(NoStatus) as caught:
        fetch(url)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2


def test_redirects_are_not_followed() -> None:
    asked: list[str] = []
    with (
        answering(200, msgspec.json.encode(VIEW), asked) as elsewhere,
        answering(302, b"", [], Location=f"{elsewhere}/api/v1/routes") as url,
        pytest.raises(NoStatus),
    ):
        fetch(url)
    assert asked == []


def test_an_endless_answer_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_client, "_MAX_BYTES", 1_000_000)
    with answering(200, b"[" * 1_000_001, []) as url, pytest.raises(NoStatus, match="too long"):
        fetch(url)


def test_no_server() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(NoStatus) as caught:
        fetch(url)
    assert caught.value.message == (
        f"no uproxy answers at {url} (connection refused); start one with "
        '"uproxy run" or "uproxy demo", or give its address with --url'
    )


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:10249", "http://127.0.0.1:10249"),
        ("http://127.0.0.1:10249/", "http://127.0.0.1:10249"),
        ("127.0.0.1:10249", "http://127.0.0.1:10249"),
        ("[::1]:10249", "http://[::1]:10249"),
        ("node-7", "http://node-7"),
        ("https://node-7:443/x?y", "https://node-7:443"),
    ],
)
def test_base_url(text: str, url: str) -> None:
    assert base_url(text) == url


@pytest.mark.parametrize("text", ["", "ftp://host", "http://", "host:port", "host:99999", "[::1"])
def test_it_is_not_a_url(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a URL; give one like http:"):
        base_url(text)
