"""PATCH bodies: JSON merge patch (RFC 7386), and as much of strategic merge as kubectl sends."""

from __future__ import annotations

from typing import Any, Final

_MERGE_KEYS: Final = {
    "ports": "port",
    "taints": "key",
    "addresses": "type",
    "conditions": "type",
    # Those of Pods.
    "containers": "name",
    "env": "name",
    "initContainers": "name",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""Lists that a strategic merge patch merges by a field of their elements; others are replaced.
EndpointSlices have lists of the same names that are replaced, see `patched`."""


def patched(data: Any, patch: Any, *, strategic: bool) -> Any:
    """The object after a patch; neither argument changes."""
    if not isinstance(patch, dict):
        return patch
    if isinstance(data, dict) and data.get("kind") == "EndpointSlice":
        strategic = False
    result = dict(data) if isinstance(data, dict) else {}
    for name, value in patch.items():
        if name.startswith("$"):  # $setElementOrder/ports, $retainKeys
            continue
        if value is None:
            result.pop(name, None)
        elif isinstance(value, list) and strategic and name in _MERGE_KEYS:
            result[name] = _merged(result.get(name) or [], value, _key(name, value))
        else:
            result[name] = patched(result.get(name), value, strategic=strategic)
    return result


def _key(name: str, patch: list[Any]) -> str:
    """Ports of containers have another one than those of Services."""
    if name == "ports" and any("containerPort" in each for each in patch):
        return "containerPort"
    return _MERGE_KEYS[name]


def _merged(before: list[Any], patch: list[Any], key: str) -> list[Any]:
    merged = {each[key]: each for each in before}
    for each in patch:
        if each.get("$patch") == "delete":
            merged.pop(each[key], None)
        else:
            merged[each[key]] = patched(merged.get(each[key]), each, strategic=True)
    return list(merged.values())
