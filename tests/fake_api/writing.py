"""What a write changes: whole objects, their status, or what a patch says."""

from __future__ import annotations

from typing import NamedTuple

from tests.fake_api.kinds import KINDS, LEASES, METALLB, SERVICES, Kind
from tests.fake_api.patching import patched
from tests.fake_api.store import ApiError, Data, Item, Name, Store

_VERSION_REQUIRED = (LEASES, *METALLB)
"""Kinds that cannot be replaced without saying which version is meant."""


class Target(NamedTuple):
    """What the path of a request means."""

    kind: Kind
    namespace: str
    name: str
    subresource: str


def target_of(path: str) -> Target:
    """Take a path apart. Raises ApiError (404) where there is no such resource."""
    for kind in KINDS:
        if path.startswith(f"{kind.root}/"):
            parts = path.removeprefix(f"{kind.root}/").strip("/").split("/")
            namespace = ""
            if parts[0] == "namespaces" and len(parts) > 2:
                namespace, parts = parts[1], parts[2:]
            if parts[0] == kind.plural:
                name, subresource, *_ = [*parts[1:], "", ""]
                return Target(kind, namespace, name, subresource)
    raise ApiError(404, "NotFound", "the server could not find the requested resource")


def write(store: Store, method: str, target: Target, data: Data) -> Item:
    """What a request does that is no patch; GET changes nothing."""
    kind, name = target.kind, _name(target)
    if method == "GET":
        return store.get(kind, name)
    if method == "POST":
        if kind.namespaced:
            data.setdefault("metadata", {})["namespace"] = target.namespace
        if kind is SERVICES or kind.custom:
            data.pop("status", None)
        return store.create(kind, data)
    if method == "PUT":
        if kind in _VERSION_REQUIRED and not data.get("metadata", {}).get("resourceVersion"):
            message = "metadata.resourceVersion: Invalid value: 0: must be specified for an"
            raise ApiError(422, "Invalid", f"{message} update")
        return store.update(kind, name, _guarded(store, target, data))
    if method == "DELETE":
        return store.delete(kind, name)
    raise ApiError(405, "MethodNotAllowed", method)


def patch(store: Store, target: Target, patch: Data, content_type: str) -> Item:
    """What a PATCH does. A resourceVersion in it must be the current one."""
    strategic = _is_strategic(target.kind, content_type)
    before = store.get(target.kind, _name(target))
    after = patched(before.data, patch, strategic=strategic)
    if "resourceVersion" not in patch.get("metadata", {}):
        after["metadata"] = {**after["metadata"], "resourceVersion": ""}
    return store.update(target.kind, _name(target), _guarded(store, target, after))


def _guarded(store: Store, target: Target, data: Data) -> Data:
    """Of a write to .../status the status counts, and in Services and Nodes also the metadata;
    of any other write all but the status."""
    if not target.kind.status:
        return data
    before = store.get(target.kind, _name(target)).data
    if target.subresource == "status":
        metadata = data.get("metadata", {})
        if target.kind.custom:
            version = metadata.get("resourceVersion", "")
            metadata = {**before["metadata"], "resourceVersion": version}
        return {**before, "metadata": metadata, "status": data.get("status", {})}
    return {**data, "status": before.get("status", {})}


def _is_strategic(kind: Kind, content_type: str) -> bool:
    """Whether a patch is a strategic one. Raises ApiError (415) for one that is not accepted."""
    accepted = ["application/merge-patch+json"]
    if not kind.custom:
        accepted.append("application/strategic-merge-patch+json")
    if content_type.partition(";")[0] not in accepted:
        text = f"the body of the request was in an unknown format; accepted: {', '.join(accepted)}"
        raise ApiError(415, "UnsupportedMediaType", text)
    return "strategic" in content_type


def _name(target: Target) -> Name:
    return target.namespace, target.name
