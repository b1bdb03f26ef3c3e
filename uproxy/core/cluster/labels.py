"""Label selectors as they are written in objects (metav1.LabelSelector)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec


class Requirement(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One of `matchExpressions`."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
            case "In":
                return labels.get(self.key) in (self.values or ())
            case "NotIn":
                return labels.get(self.key) not in (self.values or ())


class LabelSelector(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Selects objects by their labels. An empty one selects all of them."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[Requirement, ...] | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        wanted = self.match_labels or {}
        return all(labels.get(key) == value for key, value in wanted.items()) and all(
            each.matches(labels) for each in self.match_expressions or ()
        )
