"""Commands of kubectl that people try here, and the commands of uproxy that do the same."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import Final

VERBS: Final = ("get", "describe", "logs")

_SERVICES: Final = frozenset(
    ("svc", "service", "services", "ep", "endpoints", "endpointslice", "endpointslices", "all")
)
_OTHERS: Final = frozenset(
    ("po", "pod", "pods", "no", "node", "nodes", "ns", "namespace", "namespaces", "ing", "ingress")
)
"""Resources that uproxy cannot look up by name."""

_LOGS: Final = (
    'there is no "logs" here: uproxy writes its log to stderr; in a cluster, use '
    '"kubectl logs -n kube-system daemonset/uproxy"'
)


def advice(words: Sequence[str]) -> str:
    """The command to use in place of one that begins with one of VERBS."""
    verb, *rest = words
    if verb == "logs":
        return _LOGS
    if rest and rest[0] in _SERVICES:
        rest = rest[1:]
    asks_for_help = not {"-h", "--help"}.isdisjoint(rest)
    named = bool(rest) and not rest[0].startswith("-")
    if (
        asks_for_help
        or (named and rest[0].partition("/")[0] in _OTHERS)
        or (verb == "describe" and not named)
    ):
        rest = []
    command = "explain" if verb == "describe" else "status"
    if command == "explain" and not rest:
        rest = ["default/web"]
    return f'there is no "{verb}" here; use "{" ".join(["uproxy", command, *map(quote, rest)])}"'
