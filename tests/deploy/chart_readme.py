"""Prints deploy/helm/uproxy/README.md: python -m tests.deploy.chart_readme

What each value means is said in the comment above it, in values.yaml.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import yaml

from tests.deploy.rendering import CHART

VALUES: Final = CHART / "values.yaml"
_HEAD: Final = """\
# uproxy

Runs [uproxy](../../../README.md) on every node of a cluster:

    helm install uproxy deploy/helm/uproxy --namespace kube-system \\
        --set image.repository=registry.example/uproxy --set image.tag=0.1.0

[kubernetes.md](../../../docs/install/kubernetes.md) says which values fit which cluster, and
[deploy/README.md](../../README.md) what uproxy is allowed to do, and why. The chart makes the same
objects as the kustomization, for every combination of components. Values that would not work
together are refused, with the reason.

| value | default | |
|---|---|---|
"""
_FOOT: Final = """
`values.schema.json` has the type of each value, and the names of all settings. `make documents`
writes this page from the comments in `values.yaml`.
"""


class Value(NamedTuple):
    """A value of the chart."""

    path: str
    default: Any
    meaning: str


def values() -> list[Value]:
    """All that have a meaning of their own, in their order."""
    defaults = yaml.safe_load(VALUES.read_text())
    return [
        Value(".".join(path), _at(defaults, path), meaning)
        for path, meaning in _commented(VALUES.read_text())
    ]


def _commented(text: str) -> Iterator[tuple[list[str], str]]:
    """The path of each key that has a comment above it."""
    path, comment = list[str](), list[str]()
    for line in text.splitlines():
        if found := re.fullmatch(r" *# (.+)", line):
            comment.append(found[1])
        elif found := re.match(r"( *)(\w+):", line):
            path[len(found[1]) // 2 :] = [found[2]]
            if comment:
                yield list(path), " ".join(comment)
            comment.clear()


def _at(data: Any, path: list[str]) -> Any:
    for each in path:
        data = data[each]
    return data


def readme() -> str:
    rows = (f"| `{path}` | {_code(default)} | {meaning} |\n" for path, default, meaning in values())
    return f"{_HEAD}{''.join(rows)}{_FOOT}"


def _code(default: Any) -> str:
    return "" if default in (None, "") else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    sys.stdout.write(readme())
