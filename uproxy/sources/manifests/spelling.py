"""Words in manifests that are probably misspelt: fields and kinds that Kubernetes does not have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from uproxy.core.allocation.ip_address_pools import misspelt_annotations
from uproxy.core.brief import brief_name
from uproxy.core.cluster.api_fields import unknown_fields
from uproxy.core.cluster.api_kinds import misspelt
from uproxy.core.report.findings import Finding, Severity, finding
from uproxy.text.document import Document, Parts, join_parts, value_at
from uproxy.text.files import printable_name

_POOL: Final = ("metallb.io/v1beta1", "IPAddressPool")
MOST: Final = 100
"""Warnings of one file. To formulate one takes 0.2 ms, and a file may have a million fields."""


def spelling(path: str, data: Any, prefix: Parts, document: Document) -> Iterator[Finding]:
    """Warnings about one object. `data` is at `prefix` in its document."""
    if not isinstance(data, dict):
        return
    obj = _object_name(data)
    version, kind = data.get("apiVersion"), data.get("kind")
    odd = misspelt(version, kind) if isinstance(version, str) and isinstance(kind, str) else None
    if odd is not None and not odd.is_used:
        yield _warning(path, (*prefix, odd.field), odd.reason, obj, document)
    for field, advice in unknown_fields(data):
        yield _warning(path, (*prefix, *field), f"unknown field{advice}", obj, document)
    if (version, kind) == _POOL:
        # Those of Services are told from the routing table.
        for name, reason in misspelt_annotations(_annotations(data)):
            field = (*prefix, "metadata", "annotations", name)
            yield _warning(path, field, reason, obj, document)


def _warning(path: str, field: Parts, reason: str, obj: str, document: Document) -> Finding:
    return finding(
        Severity.WARNING,
        reason,
        file=printable_name(path),
        line=document.locate(field),
        obj=obj,
        field=join_parts(field),
    )


def _annotations(data: dict[str, Any]) -> Sequence[str]:
    found = value_at(data, ("metadata", "annotations"))
    return list(found) if isinstance(found, dict) else ()


def _object_name(data: dict[str, Any]) -> str:
    """As a Key is written, whatever the object is."""
    metadata = data.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    name, namespace = metadata.get("name"), metadata.get("namespace") or "default"
    if not isinstance(name, str) or not isinstance(namespace, str):
        return brief_name(str(data.get("kind")))
    in_namespace = data.get("kind") not in ("Node", "Namespace")
    full_name = f"{namespace}/{name}" if in_namespace else name
    return f"{data.get('kind')} {brief_name(full_name)}"
