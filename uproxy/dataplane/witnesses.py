"""Backends that have answered pods of this node, a few for each path: they prove that it works."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from uproxy.core.route import Backend, ServicePortName
from uproxy.dataplane.locality import Locality
from uproxy.net.messages import LocalClients, Witness

_EACH: Final = 3
"""Witnesses that are remembered for each path. With a single one, a policy that is new, or a pod
that is gone, would look like a path that is broken."""

_LOST: Final = 64
"""Witnesses that are lost between two reports, of which the control process is told."""

_Pair = tuple[Backend, str]
"""A backend and a pod that it has answered."""

_Pairs = dict[_Pair, ServicePortName]
"""Each with the Service port that has led to the backend; the latest is the last."""


class Witnesses:
    """Those that this worker has seen, and one for each path that any worker has seen."""

    def __init__(self, locality: Locality) -> None:
        self._locality = locality
        self._seen: dict[str, _Pairs] = {}
        """By path. A path without any is not among them."""
        self._shared: dict[str, Witness] = {}
        """Those that the control process knows of, by path."""
        self._reported: dict[str, Witness] = {}
        """Those that the control process has been told of, by path. It takes none whose Service was
        deleted meanwhile, so another one is reported when it is no longer among `_seen`."""
        self._lost: list[Witness] = []

    def has_path(self, path: str) -> bool:
        """Whether a path has a witness."""
        return path in self._seen or path in self._shared

    def of(self, path: str) -> list[Witness]:
        """Those of a path, the latest one first."""
        pairs = self._seen.get(path, {})
        found = [Witness(path, owner, *pair) for pair, owner in pairs.items()][::-1]
        shared = self._shared.get(path)
        return found if shared is None or shared[2:] in pairs else [*found, shared]

    def add(self, path: str, owner: ServicePortName, backend: Backend, pod: str) -> bool:
        """A backend has answered a pod. Returns whether the path had no witness before."""
        pairs = self._seen.get(path)
        if pairs is None:
            is_new = path not in self._shared
            self._seen[path] = {(backend, pod): owner}
            return is_new
        # To the end, since it is the latest now.
        pairs.pop((backend, pod), None)
        pairs[backend, pod] = owner
        if len(pairs) > _EACH:
            del pairs[_most_dispensable(pairs)]
        return False

    def lose(self, witness: Witness) -> None:
        """It proves nothing any more."""
        pairs = self._seen.get(witness.path, {})
        pair = witness.backend, witness.pod
        if pairs.get(pair) == witness.owner:
            self._remove(witness.path, pair)
        if self._shared.get(witness.path) == witness:
            del self._shared[witness.path]
            if len(self._lost) < _LOST:
                self._lost.append(witness)

    def retain(self, owner: ServicePortName, backends: Set[Backend]) -> None:
        """A Service port has only these backends now."""
        for each in self._all():
            if each.owner == owner and each.backend not in backends:
                self.lose(each)

    def update(self, clients: LocalClients) -> set[str]:
        """Take over what the control process says; `locality` has done that already. Returns the
        paths that had no witness before."""
        before = self._seen.keys() | self._shared.keys()
        shared = {each.path: each for each in clients.witnesses}
        for each in self._shared.values():
            # Another worker has found out that it proves nothing.
            pair = each.backend, each.pod
            if each.path not in shared and pair in self._seen.get(each.path, {}):
                self._remove(each.path, pair)
        self._shared = shared
        # Of those that are not shared now, it may have forgotten what it was told.
        self._reported.clear()
        for each in self._all():
            if not self._is_valid(each):
                self.lose(each)
        return self._shared.keys() - before

    def take_news(self) -> tuple[list[Witness], list[Witness]]:
        """Those that the control process has not been told of, and those that were lost."""
        lost, self._lost = self._lost, []
        known = [self.of(path) for path in sorted(self._seen.keys() - self._shared.keys())]
        new = [each[0] for each in known if self._reported.get(each[0].path) not in each]
        self._reported.update((each.path, each) for each in new)
        return new, lost

    def clear(self) -> None:
        """The network is another one."""
        self._seen.clear()
        self._shared.clear()
        self._reported.clear()
        self._lost.clear()

    def _all(self) -> list[Witness]:
        return [each for path in self._seen.keys() | self._shared.keys() for each in self.of(path)]

    def _is_valid(self, witness: Witness) -> bool:
        """Whether the pod still lives here, and the backend is still where it was."""
        locality, pod = self._locality, witness.pod
        if not locality.network_of(pod):
            return False
        return locality.path(pod, witness.backend.address) == witness.path

    def _remove(self, path: str, pair: _Pair) -> None:
        del self._seen[path][pair]
        if not self._seen[path]:
            del self._seen[path]
            self._reported.pop(path, None)


def _most_dispensable(pairs: _Pairs) -> _Pair:
    """The oldest of those that share their backend's address or their pod with another one, so that
    what is left depends on no single pod on either side if possible; or else the oldest of all."""
    for backend, pod in pairs:
        if sum(each.address == backend.address or of == pod for each, of in pairs) > 1:
            return backend, pod
    return next(iter(pairs))
