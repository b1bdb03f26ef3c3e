"""Which Services a status is about, and what to say about those that it does not know."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

from uproxy.cli.output.load_balancer import known_services
from uproxy.cli.output.numbers import counted
from uproxy.core.report.status_format import Filter, StatusView

_MAX_NAMED: Final = 3


def services_of(status: StatusView) -> set[str]:
    """NAMESPACE/NAME of every Service about which a status says something."""
    found = {each.service for each in status.frontends} | known_services(status)
    return found | {each.service for each in status.services}


def not_found(everything: StatusView, wanted: Filter) -> str:
    """Why there is nothing of the namespace or name that is asked for, in one line; "" if there is.
    `everything` is the status of all Services."""
    names = sorted(services_of(everything))
    if wanted.service:
        if any(_is_meant(each, wanted) for each in names):
            return ""
        return _no_service(everything, names, wanted)
    namespaces = sorted({each.partition("/")[0] for each in names})
    if wanted.namespace in ("", *namespaces):
        return ""
    return _no_namespace(everything, namespaces, wanted.namespace)


def _is_meant(service: str, wanted: Filter) -> bool:
    namespace, _, name = service.partition("/")
    return name == wanted.service and wanted.namespace in ("", namespace)


def _no_service(everything: StatusView, names: Sequence[str], wanted: Filter) -> str:
    similar = _similar_names(wanted.service, names)
    if similar:
        advice = f"did you mean {' or '.join(similar)}?"
    elif names:
        advice = f'"uproxy status" lists the {counted(len(names), "Service")} that it knows'
    else:
        advice = _none_known(everything)
    if everything.objects:
        unusable = counted(len(everything.objects), "object")
        advice += f'; {unusable} cannot be used, as "uproxy status" shows'
    asked = "/".join(filter(None, (wanted.namespace, wanted.service)))
    return f"no Service {asked}; {advice}"


def _no_namespace(everything: StatusView, namespaces: Sequence[str], asked: str) -> str:
    close = difflib.get_close_matches(asked, namespaces, n=_MAX_NAMED, cutoff=0.6)
    if close:
        advice = f"did you mean {' or '.join(close)}?"
    elif namespaces:
        advice = f"there are Services in {_some(namespaces)}"
    else:
        advice = _none_known(everything)
    return f"no Service is in the namespace {asked}; {advice}"


def _none_known(everything: StatusView) -> str:
    return "uproxy knows none" + ("" if everything.synced else " yet, as it is still listing them")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    shown = [*names[:_MAX_NAMED], *([f"{more:,} more"] if more > 0 else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _similar_names(name: str, names: Iterable[str]) -> list[str]:
    """Up to three similar names; the same name in other namespaces comes first."""
    by_name: dict[str, list[str]] = {}
    for each in names:
        by_name.setdefault(each.partition("/")[2], []).append(each)
    close = difflib.get_close_matches(name, by_name, n=_MAX_NAMED, cutoff=0.7)
    close += [each for each in by_name if each.startswith(name) and each not in close]
    return [each for found in close for each in by_name[found]][:_MAX_NAMED]
