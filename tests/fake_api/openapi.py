"""As much of OpenAPI v3 as kubectl reads to learn that the server itself checks fields, so that
`kubectl apply` works without --validate=false."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.fake_api.kinds import Kind

_ROOT = "/openapi/v3"


def openapi(path: str, kinds: Sequence[Kind]) -> dict[str, Any] | None:
    """What a path answers; None: it is none of these."""
    roots = {each.root.removeprefix("/") for each in kinds}
    if path == _ROOT:
        return {"paths": {root: {"serverRelativeURL": f"{_ROOT}/{root}"} for root in roots}}
    root = path.removeprefix(f"{_ROOT}/")
    if root not in roots:
        return None
    found = [each for each in kinds if each.root == f"/{root}"]
    return {
        "openapi": "3.0.0",
        "info": {"title": "fake", "version": "v1"},
        "paths": {f"{each.root}/{each.plural}/{{name}}": _operations(each) for each in found},
    }


def _operations(kind: Kind) -> dict[str, Any]:
    return {
        "patch": {
            "parameters": [
                {"name": "fieldValidation", "in": "query"},
                {"name": "dryRun", "in": "query"},
            ],
            "x-kubernetes-group-version-kind": {
                "group": kind.group,
                "version": kind.version,
                "kind": kind.kind,
            },
        }
    }
