"""Label selectors as people write them for kubectl: `app=web,tier in (a, b),!canary`."""

from __future__ import annotations

import re
from typing import Final

from uproxy.core.cluster.labels import LabelSelector, Requirement

_REQUIREMENT: Final = re.compile(
    r"""\s*
    (?: !\s*(?P<absent>[^\s,=!()<>]+)
      | (?P<key>[^\s,=!()<>]+)
        (?: \s*(?P<operator>==?|!=)\s*(?P<value>[^\s,=!()<>]*)
          | \s+(?P<set>in|notin)\s*\((?P<values>[^()=!<>]*)\)
        )?
    )\s*(?P<more>,|\Z)""",
    re.VERBOSE,
)
_OPERATORS: Final = {"=": "In", "==": "In", "!=": "NotIn", "in": "In", "notin": "NotIn"}


def parse_selector(text: str) -> LabelSelector:
    """The selector that a text describes; an empty one selects everything. Raises ValueError.

    As in Kubernetes, `!=` and `notin` also select what does not have the label at all.
    """
    found: list[Requirement] = []
    at, more = 0, bool(text.strip())
    while more:
        match = _REQUIREMENT.match(text, at)
        if match is None:
            raise ValueError(
                f'"{text}" is not a label selector; give one like app=web,tier in (a,b),!canary'
            )
        found.append(_requirement(match))
        at, more = match.end(), match["more"] == ","
    return LabelSelector(match_expressions=tuple(found))


def _requirement(match: re.Match[str]) -> Requirement:
    if match["absent"] is not None:
        return Requirement(key=match["absent"], operator="DoesNotExist")
    operator = match["operator"] or match["set"]
    if operator is None:
        return Requirement(key=match["key"], operator="Exists")
    values = [match["value"]] if match["operator"] else match["values"].split(",")
    return Requirement(
        key=match["key"],
        operator="In" if _OPERATORS[operator] == "In" else "NotIn",
        values=tuple(each.strip() for each in values),
    )
