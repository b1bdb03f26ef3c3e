"""What to do when the API server reports an error, or a list or a watch fails. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from uproxy.sources.kubernetes.watch_format import Failure

_MAX_RETRY_AFTER: Final = 300.0
"""Seconds. A server that asks for a longer wait is taken to be wrong."""


class Verdict(NamedTuple):
    """What follows from a failure."""

    relist: bool = False
    """Whether all objects have to be listed again; else the watch is resumed where it ended."""
    retry_after: float | None = None
    """Seconds that the server asks this client to wait at least."""
    expected: bool = False
    """Whether this is part of normal operation: then it is not reported as a trouble, and the next
    request follows at once the first time."""
    no_watch_list: bool = False
    """Whether the server does not support WatchList, which is then not asked for again."""
    silent: bool = False
    """Whether a watch that was resumed has received nothing at all."""

    missing: bool = False
    """Whether the cluster does not have this kind of objects, which it need not have."""

    @property
    def gone(self) -> bool:
        """Whether the server's history does not reach back far enough (410 Gone)."""
        return self.relist and self.expected and not self.no_watch_list


class RequestFailed(Exception):
    """A list or a watch has failed; the message is the reason, in one line."""

    def __init__(self, reason: str, verdict: Verdict, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.unreachable = unreachable
        """Whether there is no server at present that could answer."""


def judge(failure: Failure, *, retry_after: float | None = None, initial: bool = False) -> Verdict:
    """Judge an error of the server: the status of a response, or an ERROR event within a watch.

    `initial`: the request was for a watch that begins with all objects (KEP-3157).
    """
    wait = retry_after if retry_after is not None else failure.retry_after
    wait = min(wait, _MAX_RETRY_AFTER) if wait is not None else None
    if failure.code == 410:
        # The watch cache and etcd keep a few minutes of history. A client that was away for longer
        # cannot resume, and has to list.
        return Verdict(relist=True, retry_after=wait, expected=True)
    if failure.code in (401, 403, 408, 429) or failure.code > 501:
        # These say nothing about the resourceVersion, so the watch can be resumed. Only 504 may: it
        # also stands for a version from the future, which a server restored from a backup gives.
        return Verdict(relist=failure.code == 504, retry_after=wait)
    # Kubernetes 1.36 without etcd's RequestWatchProgress answers 500 to `sendInitialEvents`, and
    # servers without the WatchList feature answer 400 or 422.
    return Verdict(relist=True, retry_after=wait, expected=initial, no_watch_list=initial)


class FailureCounts:
    """Failures in a row of one resource. Counted are lists and watches that had begun."""

    def __init__(self) -> None:
        self._gone = 0
        self._others = 0
        self._outages = 0

    def forgive(self, outages: int, *, lasted: bool) -> None:
        """Start from zero after a watch that has lasted, and after a further outage, since another
        server may answer then. A list that succeeds is no reason to do so: it may succeed again and
        again while each watch after it fails."""
        if lasted or outages != self._outages:
            self._gone = self._others = 0
        self._outages = outages

    def count(self, verdict: Verdict) -> int:
        """Count this failure; returns how many of its kind there have been, itself included. A
        server without WatchList is not a failure: 0."""
        if verdict.no_watch_list:
            return 0
        if verdict.gone:
            self._gone += 1
            return self._gone
        self._others += 1
        return self._others
