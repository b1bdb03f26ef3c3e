"""The published schema is that of the code, and agrees with what is read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_as_file import CHANGED
from tests.config.test_file import HEAD, KUBEADM, OWN, of_its_kind
from uproxy.cli.config_schema import schema_text
from uproxy.config.as_file import as_file
from uproxy.config.fields import KINDS, UPROXY
from uproxy.config.settings import Config
from uproxy.text.document import Malformed
from uproxy.text.yaml_text import yaml_documents

PUBLISHED = Path(__file__).parents[2] / "docs" / "uproxy-config.schema.json"
SCHEMA = json.loads(schema_text())
TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, dict),
}
SAID = {"$schema", "title", "description", "default", "examples", "definitions"}
"""Keywords that check nothing."""


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is valid, by as much of draft 7 as the schema uses."""
    checks: dict[str, Callable[[Any], bool]] = {
        "type": lambda e: any(TYPES[each](value) for each in ([e] if isinstance(e, str) else e)),
        "enum": lambda e: value in e,
        "const": lambda e: value == e,
        "pattern": lambda e: not isinstance(value, str) or bool(re.search(e, value)),
        "minimum": lambda e: isinstance(value, str | None) or value >= e,
        "maximum": lambda e: isinstance(value, str | None) or value <= e,
        "maxLength": lambda e: len(value or "") <= e,
        "required": lambda e: all(each in value for each in e),
        "items": lambda e: all(fits(each, e) for each in value or ()),
        "properties": lambda e: all(fits(value[k], each) for k, each in e.items() if k in value),
        "additionalProperties": lambda e: _further(value, schema, e),
        "anyOf": lambda e: any(fits(value, each) for each in e),
        "$ref": lambda e: fits(value, SCHEMA["definitions"][e.rpartition("/")[2]]),
        "if": lambda e: fits(value, schema["then" if fits(value, e) else "else"]),
        "then": lambda e: True,
        "else": lambda e: True,
    }
    return all(checks[name](each) for name, each in schema.items() if name not in SAID)


def _further(value: Any, schema: dict[str, Any], wanted: Any) -> bool:
    others = [each for name, each in value.items() if name not in schema.get("properties", {})]
    return not others if wanted is False else all(fits(each, wanted) for each in others)


def documents(text: str) -> list[Any]:
    found = list(yaml_documents(text))
    assert not any(isinstance(each, Malformed) for each in found)
    return [each.data for each in found if not isinstance(each, Malformed)]


def test_the_published_schema_is_up_to_date() -> None:
    assert PUBLISHED.read_text() == schema_text(), (
        f"run: python -m uproxy.cli.config_schema > {PUBLISHED.name}, in docs"
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(KUBEADM, id="kubeadm"),
        pytest.param(HEAD, id="empty"),
        pytest.param(OWN + "workers: 3\nbalancer: random\ntcpIdleTimeout: 0\n", id="ours"),
        pytest.param(OWN + "drainTimeout: 1m30.5s\nlb: null\n", id="duration"),
        pytest.param(HEAD + "conntrack: {min: 0}\nfeatureGates: {A: true}\n", id="kube-proxy"),
    ],
)
def test_what_is_valid(text: str) -> None:
    assert all(fits(each, SCHEMA) for each in documents(text))


@pytest.mark.parametrize("config", [CHANGED, Config()], ids=["changed", "defaults"])
def test_what_uproxy_writes_is_valid(config: Config) -> None:
    assert all(fits(dict(each), SCHEMA) for each in as_file(config))


@pytest.mark.parametrize(
    "text",
    [
        "workers: 0",
        "workers: '2'",
        "workerz: 2",
        "balancer: randon",
        "lbPools: 192.0.2.1",
        "drainTimeout: 10",
        "drainTimeout: '10'",
        "drainTimeout: -1s",
        "logging: {format: xml}",
        "logging: {colour: red}",
        "iptables: {masqueradeBit: 32}",
        "mode: magic",
        "workers: 1\nclusterCIDR: 10.0.0.0/8",
        "mode: ipvs\nworkers: 1",
    ],
)
def test_what_is_not(text: str) -> None:
    """The file is refused for the same reasons (test_file.py)."""
    (document,) = documents(of_its_kind(text))
    assert not fits(document, SCHEMA)


def test_every_field_that_is_an_option_is_explained() -> None:
    for kind in KINDS.values():
        fields = SCHEMA["definitions"][kind.name]["properties"]
        for name, *inside in kind.options.values():
            assert inside or fields[name]["description"], name
    workers = SCHEMA["definitions"][UPROXY.name]["properties"]["workers"]
    assert workers["description"].startswith("Number of worker processes")
