"""Applies the objects that sources deliver to the state of the cluster."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from uproxy.control.sync_metrics import SyncMetrics
from uproxy.core.backoff import Backoff
from uproxy.core.cluster.objects import Object, ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.errors import unexpected
from uproxy.core.report.status import ObjectStatus
from uproxy.core.report.unusable_objects import MOST, bounded, log_lines
from uproxy.core.retry import RetrySchedule

log = logging.getLogger(__name__)

_RETRY: Final = Backoff(initial=1.0, maximum=30.0, jitter=0.2)
"""Between attempts to apply objects that could not be applied; each costs 0.1 ms."""


class _Identity(NamedTuple):
    source: str
    kind: type[Any]
    name: ObjectName


class _Refused(NamedTuple):
    obj: Object | None
    """The object; None if it was to be removed."""
    reason: str


class StateUpdater:
    """A `Sink` for all sources, which never raises.

    An object that causes an unexpected error does not stop others: it gets a reason of its own, the
    last version of it that could be applied stays in effect, and the new one is tried again.
    """

    def __init__(
        self, state: ClusterState, sync_metrics: SyncMetrics, changed: Callable[[], None]
    ) -> None:
        """`changed` is called after each change."""
        self._state = state
        self._sync_metrics = sync_metrics
        self._changed = changed
        self._errors: dict[str, Sequence[ObjectStatus]] = {}
        self._refused: dict[_Identity, _Refused] = {}
        self.retry: Final = RetrySchedule(_RETRY)
        """When to call `try_again`."""

    @property
    def errors(self) -> Mapping[str, Sequence[ObjectStatus]]:
        """By source: the objects that cannot be used, and why."""
        if not self._refused:
            return self._errors
        found = {source: list(each) for source, each in self._errors.items()}
        for identity, refused in islice(self._refused.items(), MOST):
            where = f"{identity.kind.__name__} {identity.name.namespace}/{identity.name.name}"
            status = ObjectStatus(where=where, field="", reason=refused.reason)
            found.setdefault(identity.source, []).append(status)
        return found

    def replace(self, source: str, objects: Sequence[Object]) -> None:
        for obj in list(self._state.new_or_changed(source, objects)):
            self._take(source, obj)
        there = {(type(obj), obj.key) for obj in objects}
        for identity in [each for each in self._refused if each.source == source]:
            if identity[1:] not in there:
                del self._refused[identity]
        for kind, name in self._state.delivered_except(source, there):
            self._drop(source, kind, name)
        self._state.sync(source)
        self._changed()

    def apply(self, source: str, obj: Object) -> None:
        self._take(source, obj)
        self._changed()

    def remove(self, source: str, kind: type[Object], key: ObjectName) -> None:
        self._drop(source, kind, key)
        self._changed()

    def accept_last_known(self, source: str) -> None:
        """See ClusterState.accept_last_known."""
        self._state.accept_last_known(source)
        self._changed()

    def report_errors(self, source: str, errors: Sequence[ObjectStatus]) -> None:
        errors = bounded(errors, source)
        for line in log_lines(self._errors.get(source, ()), errors):
            log.warning("%s", line)
        self._errors[source] = errors

    def try_again(self, now: float) -> None:
        """Apply the refused objects again, if that is due."""
        if not self.retry.due(now):
            return
        for (source, kind, name), (obj, _) in list(self._refused.items()):
            if obj is None:
                self._drop(source, kind, name)
            else:
                self._take(source, obj)
        if self._refused:
            self.retry.failed(now, random.random())
        else:
            self.retry.succeeded()

    def _take(self, source: str, obj: Object) -> None:
        identity = _Identity(source, type(obj), obj.key)
        try:
            self._sync_metrics.applying(self._state, obj)
            self._state.apply(source, obj)
        except Exception as error:
            self._refuse(identity, obj, error)
        else:
            self._refused.pop(identity, None)

    def _drop(self, source: str, kind: type[Object], name: ObjectName) -> None:
        identity = _Identity(source, kind, name)
        try:
            self._sync_metrics.removing(self._state, kind, name)
            self._state.remove(source, kind, name)
        except Exception as error:
            self._refuse(identity, None, error)
        else:
            self._refused.pop(identity, None)

    def _refuse(self, identity: _Identity, obj: Object | None, error: Exception) -> None:
        before = self._refused.get(identity)
        reason = unexpected(error)
        self._refused[identity] = _Refused(obj, reason)
        if before is None or before.reason != reason:
            log.error(
                "cannot apply %s %s; retrying",
                identity.kind.__name__,
                identity.name,
                exc_info=error,
            )
        if self.retry.at is None:
            self.retry.failed(time.monotonic(), random.random())
