"""The configuration file: a KubeProxyConfiguration (v1alpha1), a UproxyConfiguration, or both.

A file that kube-proxy accepts is accepted here, and kube-proxy accepts a file that begins with its
document, since it reads no further (docs/decisions/0019-one-file-two-kinds.md). As in kube-proxy,
"", 0 and null in its fields mean the default, since Go cannot tell them from absence (kubeadm
writes such files). Fields that only make sense with kernel rules are accepted, and named in one
warning. An unknown field is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from uproxy.config import syntax
from uproxy.config.field_types import Duration, Fields, PositiveDuration, parse_field
from uproxy.config.fields import KIND_NAMES, KINDS, KUBE_PROXY, SWITCHES, UPROXY, Kind
from uproxy.config.given import Given, Options, Source
from uproxy.config.kube_proxy_fields import KubeProxyConfiguration
from uproxy.config.uproxy_fields import UproxyConfiguration
from uproxy.core.allocation import pool_syntax
from uproxy.core.brief import brief, brief_name
from uproxy.core.cluster.decode import explain
from uproxy.core.suggestions import did_you_mean
from uproxy.text.advice import advise
from uproxy.text.document import Document, Malformed, Parts, decode_text, join_parts
from uproxy.text.files import printable_name, read_any
from uproxy.text.yaml_text import yaml_documents

_EMPTY: Final[tuple[Any, ...]] = (None, "", 0, "0", "0s", [], {})
"""Values that mean the default in a KubeProxyConfiguration."""
_HARMLESS: Final = {
    "mode": ("userspace",),
    "bindAddress": ("0.0.0.0", "::"),
    "detectLocalMode": ("ClusterCIDR", "NodeCIDR"),
}
"""Values of unused fields for which there is no warning: they ask for what uproxy does anyway."""
_PATHS: Final = ("kubelet_kubeconfig", "state_dir")


class ConfigFileError(Exception):
    """The file cannot be used: "FILE:LINE: FIELD: REASON"."""


class Loaded(NamedTuple):
    given: Options
    warnings: tuple[str, ...]


class _Wrong(Exception):
    def __init__(self, parts: Parts, reason: str) -> None:
        super().__init__(reason)
        self.parts = parts
        self.reason = reason


def load_config(path: Path, patience: float = 10.0) -> Loaded:
    """Read a file; a pipe is waited for, for `patience` seconds. Raises ConfigFileError."""
    try:
        raw = read_any(path, patience=patience)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigFileError(
            f"{printable_name(str(path))}: {reason[:1].lower()}{reason[1:]}"
        ) from None
    return read_config(path, raw)


def read_config(path: Path, raw: bytes) -> Loaded:
    """The same, from the bytes of a file. Relative paths in it are relative to its directory."""
    name = printable_name(str(path))
    try:
        documents = _documents(decode_text(raw))
    except Malformed as error:
        raise ConfigFileError(f"{name}:{error.line}: {brief(error.reason)}") from None
    given: dict[str, Given] = {}
    switched_off: dict[str, Given] = {}
    ignored: list[str] = []
    kinds: list[Kind] = []
    for document in documents:
        try:
            kind = _kind_of(document.data, kinds)
            for option, value in _options(kind, document.data, path.parent):
                parts = kind.options[option]
                _refuse_nul(parts, value)
                where = f"{name}:{document.locate(parts)}"
                given[option] = Given(value, Source.FILE, join_parts(parts), where)
        except _Wrong as wrong:
            field = f"{brief_name(join_parts(wrong.parts))}: " if wrong.parts else ""
            line = document.locate(wrong.parts)
            raise ConfigFileError(f"{name}:{line}: {field}{brief(wrong.reason)}") from None
        kinds.append(kind)
        switched_off.update(_switched_off(document, name))
        ignored += _ignored(document.data, kind)
    return Loaded(given | switched_off, tuple(_warning(name, ignored)))


def _documents(text: str) -> list[Document]:
    documents = []
    for each in yaml_documents(text):
        if isinstance(each, Malformed):
            raise each
        if each.data is not None:
            documents.append(each)
    if not documents:
        raise Malformed(f"empty; a {KIND_NAMES} is expected", 1)
    return documents


def _kind_of(data: Any, others: list[Kind]) -> Kind:
    """The kind of a document, which must not be that of one of the `others`."""
    if not isinstance(data, dict):
        raise _Wrong((), "a mapping is expected, with apiVersion and kind")
    if "kind" not in data:
        raise _Wrong((), f"apiVersion and kind are missing; begin with {_first_lines(data)}")
    kind = KINDS.get(str(data["kind"]))
    if kind is None:
        hint = did_you_mean(str(data["kind"]), KINDS)
        raise _Wrong(("kind",), f'is "{data["kind"]}"; expected {KIND_NAMES}{hint}')
    version = data.get("apiVersion")
    if version != kind.api_version:
        found = "is missing" if version is None else f'is "{version}"'
        raise _Wrong(("apiVersion",), f'{found}; expected "{kind.api_version}"')
    if kind in others:
        raise _Wrong((), f"a second {kind.name}; give only one")
    return kind


def _first_lines(data: Mapping[str, Any]) -> str:
    """What is missing in a document, judged by its fields."""
    kind = KUBE_PROXY if KUBE_PROXY.field_names & data.keys() else UPROXY
    return " and ".join(f'"{name}: {value}"' for name, value in kind.head.items())


def _refuse_nul(parts: Parts, value: Any) -> None:
    """YAML can express this character, but no file name can contain it."""
    if any("\0" in str(each) for each in (value if isinstance(value, tuple) else (value,))):
        raise _Wrong(parts, "contains a NUL character; leave it out")


def _options(kind: Kind, data: Any, directory: Path) -> Iterator[tuple[str, Any]]:
    for name in data:
        for other in KINDS.values():
            if name in other.field_names and name not in kind.field_names:
                raise _Wrong(
                    (name,),
                    f"is a field of {other.name}; put it into a document of that kind, below a "
                    "line with ---",
                )
    try:
        document: Fields = msgspec.convert(data, kind.type, dec_hook=parse_field)
    except msgspec.ValidationError as error:
        raise _Wrong(*advise(explain(error), data, kind.type)) from None
    if isinstance(document, KubeProxyConfiguration):
        _check_periods(document)
        _check_detection(document)
        yield from _kube_proxy_options(document, directory)
    elif isinstance(document, UproxyConfiguration):
        yield from _uproxy_options(document, kind, directory)


def _check_periods(file: KubeProxyConfiguration) -> None:
    for name, section in file.kernel_sections().items():
        if section.sync_period and (section.min_sync_period or 0) > section.sync_period:
            raise _Wrong((name, "minSyncPeriod"), "is longer than syncPeriod")


def _check_detection(file: KubeProxyConfiguration) -> None:
    mode, names = file.detect_local_mode, file.detect_local
    for wanted, field, name in (
        ("BridgeInterface", "bridgeInterface", names.bridge_interface if names else ""),
        (
            "InterfaceNamePrefix",
            "interfaceNamePrefix",
            names.interface_name_prefix if names else "",
        ),
    ):
        if mode == wanted and not name:
            raise _Wrong(("detectLocal", field), f"is required with detectLocalMode {wanted}")


def _kube_proxy_options(file: KubeProxyConfiguration, directory: Path) -> Iterator[tuple[str, Any]]:
    if file.hostname_override:
        yield "hostname_override", file.hostname_override
    if file.client_connection is not None and file.client_connection.kubeconfig:
        yield "kubeconfig", directory / file.client_connection.kubeconfig
    if file.node_port_addresses:
        yield "nodeport_addresses", tuple(map(str, file.node_port_addresses))
    if file.cluster_cidr:
        yield "cluster_cidr", syntax.parse_cluster_cidr(file.cluster_cidr)
    if file.healthz_bind_address:
        yield "healthz_bind_address", syntax.parse_address(file.healthz_bind_address)
    if file.metrics_bind_address:
        yield "metrics_bind_address", syntax.parse_address(file.metrics_bind_address)
    if file.bind_address_hard_fail:
        yield "bind_address_hard_fail", True
    if file.logging is not None and file.logging.format:
        yield "log_format", file.logging.format
    if file.logging is not None and file.logging.verbosity:
        yield "verbosity", file.logging.verbosity


def _uproxy_options(
    file: UproxyConfiguration, kind: Kind, directory: Path
) -> Iterator[tuple[str, Any]]:
    for option in kind.options:
        value = getattr(file, option)
        if value is not None and value != "":
            try:
                plain = _plain(option, value, directory)
            except ValueError as error:  # A pool whose text is empty.
                raise _Wrong(kind.options[option], str(error)) from None
            yield option, plain


def _switched_off(document: Document, name: str) -> Iterator[tuple[str, Given]]:
    """Addresses that are switched off, whichever address the other document gives."""
    for field, option in SWITCHES.items():
        if document.data.get(field) is False:
            yield option, Given(None, Source.FILE, field, f"{name}:{document.locate((field,))}")


def _plain(option: str, value: Any, directory: Path) -> Any:
    """The value as a flag would give it."""
    if option in _PATHS:
        return directory / value
    if option == "flow_log":
        return value if value == "-" else str(directory / value)
    if option == "manifests":
        return tuple(directory / each for each in value)
    if option == "lb_pool":
        return tuple(map(pool_syntax.parse_pool, value))
    if option == "lb_reserve":
        return tuple(each for text in value for each in pool_syntax.parse_reservations(text))
    if option == "lb_drain":
        return tuple(each for text in value for each in pool_syntax.parse_ranges(text))
    if isinstance(value, tuple):
        return tuple(map(str, value))
    if isinstance(value, Duration | PositiveDuration):
        return float(value)
    return str(value) if isinstance(value, str) and not isinstance(value, Enum) else value


def _ignored(data: Mapping[str, Any], kind: Kind) -> Iterator[str]:
    """Fields that are given and have no effect."""
    if kind is KUBE_PROXY:
        used = {join_parts(each) for each in (*kind.options.values(), *((e,) for e in kind.head))}
        yield from _without_effect(data, used, "")


def _without_effect(data: Mapping[str, Any], used: set[str], prefix: str) -> Iterator[str]:
    for name, value in data.items():
        path = f"{prefix}{name}"
        if path in used or value in _EMPTY or value in _HARMLESS.get(path, ()):
            continue
        if isinstance(value, dict):
            yield from _without_effect(value, used, f"{path}.")
        else:
            yield path


def _warning(name: str, ignored: list[str]) -> Iterator[str]:
    if ignored:
        fields = brief(", ".join(ignored))
        yield f"{name}: ignored, as they have no effect in uproxy: {fields}"
