"""The files of the status page, and what a browser is told about them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources

import pytest

from tests.http.client import fetch
from tests.http.statuses import EMPTY
from uproxy.config.settings import Address
from uproxy.core.report.status import FrontendState
from uproxy.core.report.telemetry import Telemetry
from uproxy.http.api import api_app
from uproxy.http.server import HttpServer

FOLDER = resources.files("uproxy.http").joinpath("page")
FILES = {each.name: each.read_text() for each in FOLDER.iterdir()}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
LONGEST = 250
"""Lines of a file."""


def path_of(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


@asynccontextmanager
async def serving() -> AsyncIterator[Address]:
    app = api_app(lambda: EMPTY, Telemetry())
    async with HttpServer(app, [Address("127.0.0.1", 0)], name="metrics") as server:
        yield server.bound[0]


@pytest.mark.parametrize("name", FILES)
async def test_a_file(name: str) -> None:
    async with serving() as address:
        answer = await fetch(address, path_of(name))
        again = await fetch(address, path_of(name), If_None_Match=answer.headers["Etag"])
    assert (answer.status, answer.body.decode()) == (200, FILES[name])
    kind = TYPES[name.rpartition(".")[2]]
    assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("name", FILES)
async def test_the_policy(name: str) -> None:
    async with serving() as address:
        answer = await fetch(address, path_of(name))
    header = answer.headers["Content-Security-Policy"]
    policy = dict(each.split(" ", 1) for each in header.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["trusted-types"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert "unsafe" not in header
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_the_files_name_each_other() -> None:
    """A file that none of them loads is not needed, and one that is not there would be missed."""
    loaded = {"index.html"}
    for name, text in FILES.items():
        found = re.findall(r'(?:from "\./|src="page/|href="page/)([\w.]+)"', text)
        assert set(found) <= set(FILES), name
        loaded.update(found)
    assert loaded == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_short(name: str) -> None:
    assert len(FILES[name].splitlines()) <= LONGEST


@pytest.mark.parametrize("name", FILES)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    urls = set(re.findall(r"https?://[^\s\"')]+", FILES[name]))
    assert urls <= {"http://www.w3.org/2000/svg"}, "the name of a kind of elements, never loaded"


def test_nothing_is_in_the_markup_that_the_policy_forbids() -> None:
    text = FILES["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_text_never_becomes_markup_or_code(name: str) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|setHTML"
    assert not re.search(forbidden, SCRIPTS[name])


def test_text_enters_the_page_in_one_place() -> None:
    """Where characters are escaped that turn the order of letters round."""
    found = [
        (name, line.strip())
        for name, text in SCRIPTS.items()
        for line in text.splitlines()
        if re.search(r"(textContent|innerText|nodeValue)\s*=[^=]|createTextNode", line)
    ]
    assert found == [("text.js", "if (node.textContent !== shown) node.textContent = shown;")]


def test_requests_only_read() -> None:
    asked = [text for text in SCRIPTS.values() if "fetch(" in text]
    assert len(asked) == 1
    assert "method" not in asked[0]
    assert not re.search(r"XMLHttpRequest|sendBeacon|WebSocket", "".join(SCRIPTS.values()))


@pytest.mark.parametrize("state", FrontendState)
def test_every_state_can_be_chosen_and_has_a_colour(state: FrontendState) -> None:
    assert f"<option>{state}</option>" in FILES["index.html"]
    assert re.search(rf"^.*\.{state}\b.*{{ color: ", FILES["page.css"], re.MULTILINE)
    assert f'"{state}"' in FILES["model.js"]
