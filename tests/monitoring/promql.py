"""Which metrics and labels an expression of PromQL names. Whether it parses at all is for
Prometheus to say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

_STRING: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_SELECTOR: Final = re.compile(r"\b([a-zA-Z_:][\w:]*)(?![\w:])(?:\{([^}]*)\})?(?!\s*\()")
_MATCHER: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING: Final = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_BY: Final = re.compile(r"\bby\s*\(([^)]*)\)")
_WITHOUT_LABELS: Final = re.compile(r"\b(?:absent|sum|max|min|count)\s*\(")
_RANGE: Final = re.compile(r"\[[^\]]*\]")
_WORDS: Final = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})

_OF_TARGETS: Final = frozenset({"instance", "job"})
"""Labels that Prometheus adds to each series."""
_OF_PROMETHEUS: Final = {
    "up": frozenset[str](),
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
}
"""Metrics that Prometheus makes itself."""


class Named(NamedTuple):
    """What an expression names."""

    metrics: Mapping[str, frozenset[str]]
    """With the labels that each is selected by."""
    grouped: frozenset[str]
    """Labels that results are grouped or joined by."""


def named(expression: str) -> Named:
    """The metrics and labels of an expression."""
    text = _RANGE.sub("", _STRING.sub('""', expression))
    grouped = {each.strip() for _, labels in _GROUPING.findall(text) for each in labels.split(",")}
    metrics: dict[str, frozenset[str]] = {}
    for name, matchers in _SELECTOR.findall(_GROUPING.sub("", text)):
        if name.lower() not in _WORDS:
            found = frozenset(_MATCHER.findall(matchers))
            metrics[name] = metrics.get(name, frozenset()) | found
    return Named(metrics, frozenset(grouped - {""}))


def unknown(expression: str, exported: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """The names in an expression that no uproxy exports. `exported`: labels by metric;
    that of a histogram has "le"."""
    found = named(expression)
    known = {**exported, **_of_histograms(exported), **_OF_PROMETHEUS}
    labels = set(_OF_TARGETS)
    for metric, selected in found.metrics.items():
        if metric not in known:
            yield metric
            continue
        own = known[metric] | _OF_TARGETS
        labels |= own
        yield from (f"{metric}{{{each}}}" for each in sorted(selected - own))
    yield from (f"by ({each})" for each in sorted(found.grouped - labels))


def labels_of(expression: str, exported: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The labels that the series of its result may have."""
    by = _BY.findall(_STRING.sub('""', expression))
    if by:
        return frozenset(each.strip() for labels in by for each in labels.split(","))
    if _WITHOUT_LABELS.search(expression):
        return frozenset()
    known = {**exported, **_OF_PROMETHEUS}
    return _OF_TARGETS.union(*(known.get(each, ()) for each in named(expression).metrics))


def selected_values(expression: str) -> Iterator[tuple[str, str, str]]:
    """Metric, label and value, for each that a selector names; those of simple patterns too."""
    for metric, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expression):
        for label, text in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"", matchers):
            yield from ((metric, label, value) for value in text.split("|"))


def _of_histograms(exported: Mapping[str, frozenset[str]]) -> Mapping[str, frozenset[str]]:
    return {
        f"{metric}{suffix}": labels if suffix == "_bucket" else labels - {"le"}
        for metric, labels in exported.items()
        if "le" in labels
        for suffix in ("_bucket", "_sum", "_count")
    }
