"""By which names a request may call the metrics address."""

from __future__ import annotations

import pytest

from uproxy.http.allowed_hosts import ANY, answers_to, known_names

NAMES = known_names("Node-7", "node-7.example.com.", "")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:10249",
        "192.0.2.7:10249",
        "[::1]",
        "[::1]:10249",
        "[2001:db8::7]:80",
        "::1",
        "localhost",
        "localhost:10249",
        "LocalHost.:10249",
        "localhost:",
        "node-7",
        "NODE-7:10249",
        "node-7.example.com:10249",
        "node-7.example.com.",
    ],
)
def test_known(host: str) -> None:
    assert answers_to([host], NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:10249",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "node-7.evil.example",
        "example.com",
        "[evil.example]:80",
        "[::1]evil.example",
        "[::1",
        "127.0.0.1:80@evil.example",
        "127.0.0.1, evil.example",
        "",
        ":10249",
        "0x7f.1",
        "*",
        "löcalhost",
        "localhost\x00",
    ],
)
def test_unknown(host: str) -> None:
    assert not answers_to([host], NAMES)


def test_every_header_has_to_be_known() -> None:
    assert not answers_to(["127.0.0.1", "evil.example"], NAMES)
    assert not answers_to(["evil.example", "127.0.0.1"], NAMES)


def test_a_request_without_the_header_is_from_no_browser() -> None:
    assert answers_to([], NAMES)


def test_all_names_may_be_allowed() -> None:
    assert answers_to(["evil.example"], known_names(ANY))
