"""Plain data as YAML, for people to read and edit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml


def write_yaml(documents: Iterable[Any]) -> str:
    """One document or several, with --- between them, in which fields keep their order."""
    texts = (
        yaml.safe_dump(each, sort_keys=False, allow_unicode=True, width=100) for each in documents
    )
    return "---\n".join(texts)
