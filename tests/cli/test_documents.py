"""Output for scripts."""

from __future__ import annotations

import json

import click
import msgspec
import pytest
import yaml

from tests.cli import views
from tests.nasty import NASTY, is_fit_to_print
from uproxy.cli.documents import Output, OutputType, document
from uproxy.core.printable import printable_json
from uproxy.core.report.status_format import Filter

STATUS = views.status(
    frontends=[
        views.frontend("prod/web"),
        views.frontend("default/web"),
        views.frontend("default/web", state="failed"),
    ],
    services=[views.not_served("default/odd", "no ports")],
)
BODY = msgspec.json.encode(STATUS)


def output(text: str) -> Output:
    return OutputType().convert(text, None, None)


def made(text: str, wanted: Filter = Filter(), *, one_line: bool = False) -> str:  # noqa: B008
    return document(output(text), STATUS, BODY, wanted, one_line=one_line)


def test_json() -> None:
    assert json.loads(made("json")) == json.loads(BODY)
    assert made("json").startswith('{\n  "node": "node-1",\n')
    assert made("json", one_line=True) == BODY.decode()


def test_a_server_cannot_break_the_line() -> None:
    body = msgspec.json.format(BODY, indent=4)
    assert document(output("json"), STATUS, body, Filter(), one_line=True) == BODY.decode()


def test_yaml() -> None:
    assert yaml.safe_load(made("yaml")) == json.loads(BODY)
    assert made("yaml").startswith("node: node-1\nsynced: true\nfrontends:\n- frontend: ")
    assert made("yaml", one_line=True).startswith("---\nnode: node-1\n")
    again = list(yaml.safe_load_all("\n".join([made("yaml", one_line=True)] * 2)))
    assert again == [json.loads(BODY)] * 2


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_yaml_cannot_harm_a_terminal(text: str) -> None:
    if any("\ud800" <= each <= "\udfff" for each in text):
        text = text.encode(errors="replace").decode()
    status = views.status(node=text)
    body = printable_json(msgspec.json.encode(status))
    said = document(output("yaml"), status, body, Filter())
    assert is_fit_to_print(said)
    assert said.isascii()
    assert yaml.safe_load(said)["node"] == text


def test_names() -> None:
    assert made("name") == "default/odd\ndefault/web\nprod/web"
    assert made("name", Filter(state="serving")) == "default/web\nprod/web"


def test_jsonpath() -> None:
    assert made("jsonpath={.frontends[*].service}") == "prod/web default/web default/web"
    assert made("jsonpath={.node}{'\\n'}") == "node-1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xml", '"xml" is no output format; use table, wide, json, yaml, name or jsonpath='),
        ("jsonpath", '"jsonpath" is no output format'),
        ("jsonpath={", "the template cannot be used: expected a path"),
        ("jsonpath={.a[}", "the template cannot be used: "),
    ],
)
def test_it_is_no_format(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        output(text)
    assert caught.value.message.startswith(message)
