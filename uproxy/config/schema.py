"""The JSON schema of the configuration file, for editors and for checks before a roll-out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from uproxy.config import field_types
from uproxy.config.as_file import as_file
from uproxy.config.fields import FIELDS, KINDS, KUBE_PROXY, UPROXY, Kind
from uproxy.config.settings import Config

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
"""The latest that yaml-language-server supports."""
_DEFINITIONS: Final = "#/definitions/{name}"
_DURATION: Final = r"^(\+?((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+|[-+]?0)$"
_EXAMPLES: Final[Mapping[type[Any], str]] = {
    field_types.Cidr: "10.0.0.0/8",
    field_types.NodePortAddress: "primary",
    field_types.ClusterCidr: "10.244.0.0/16",
    field_types.HostPort: "127.0.0.1:10249",
    field_types.IpAddress: "0.0.0.0",
    field_types.LabelValue: "uproxy",
    field_types.ServerAddress: "192.0.2.1:6443",
    field_types.HostName: "node7.example.com",
    field_types.PoolText: "192.0.2.10-192.0.2.50",
    field_types.ReservationText: "192.0.2.10=default/web",
    field_types.RangeText: "192.0.2.32/28",
    field_types.NamespaceName: "kube-system",
    field_types.IPMode: "auto",
}
_VARYING: Final = ("workers", "lb")
"""Fields whose default depends on the machine, or on other fields."""
_SWITCH: Final = 'Whether this address is served. In a KubeProxyConfiguration, "" is the default.'


def config_schema(help_texts: Mapping[str, str]) -> Mapping[str, Any]:
    """The schema of one document of the file, of either kind. `help_texts`: what is said of each
    option."""
    _, definitions = msgspec.json.schema_components(
        [each.type for each in KINDS.values()], schema_hook=_text, ref_template=_DEFINITIONS
    )
    for definition in definitions.values():
        fields = definition.get("properties", {})
        fields |= {name: _or_null(field) for name, field in fields.items()}
    for kind, defaults in zip((KUBE_PROXY, UPROXY), as_file(Config()), strict=True):
        _finish(definitions[kind.name], kind, defaults)
    for option, text in help_texts.items():
        _at(definitions, option)["description"] = text
    for name in ("serveHealthz", "serveMetrics"):
        definitions[UPROXY.name]["properties"][name]["description"] = _SWITCH
    return {
        "$schema": _DRAFT,
        "title": "A document of the configuration file of uproxy run",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": {"kind": {"enum": list(KINDS)}},
        "if": {"properties": {"kind": {"const": UPROXY.name}}},
        "then": {"$ref": _DEFINITIONS.format(name=UPROXY.name)},
        "else": {"$ref": _DEFINITIONS.format(name=KUBE_PROXY.name)},
        "definitions": definitions,
    }


def _finish(definition: dict[str, Any], kind: Kind, defaults: Mapping[str, Any]) -> None:
    definition["description"] = _KIND_TEXTS[kind.name]
    for name, value in kind.head.items():
        definition["properties"][name] = {"const": value}
    fields = definition["properties"]
    for name, value in defaults.items():
        if value and name not in (*kind.head, *_VARYING) and not isinstance(value, dict):
            fields[name]["default"] = value


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field that may be null, in as few words as possible."""
    plain, *rest = field.get("anyOf", ({},))
    if rest != [{"type": "null"}]:
        return {name: each for name, each in field.items() if name != "default"}
    if "enum" in plain:
        return {**plain, "enum": [*plain["enum"], None]}
    if "type" in plain:
        types = plain["type"] if isinstance(plain["type"], list) else [plain["type"]]
        return {**plain, "type": [*types, "null"]}
    return {"anyOf": [plain, *rest]}


_KIND_TEXTS: Final = {
    KUBE_PROXY.name: "The options that kube-proxy has too, and fields of it that have no effect.",
    UPROXY.name: "The options that kube-proxy does not have.",
}


def _at(definitions: Mapping[str, Any], option: str) -> dict[str, Any]:
    """The schema of the field of an option."""
    kind = next(each for each in KINDS.values() if option in each.options)
    name, found = kind.name, {}
    for part in map(str, FIELDS[option]):
        found = definitions[name]["properties"][part]
        inner = [each["$ref"] for each in found.get("anyOf", ()) if "$ref" in each]
        name = inner[0].rpartition("/")[2] if inner else ""
    return found


def _text(kind: type[Any]) -> dict[str, Any]:
    """A value that is written as text."""
    if kind in (field_types.Duration, field_types.PositiveDuration):
        return {
            "type": ["string", "integer"],
            "pattern": _DURATION,
            "minimum": 0,
            "maximum": 0,
            "examples": ["30s", "1m30s", "250ms"],
        }
    return {"type": "string", "examples": [_EXAMPLES[kind]]}
