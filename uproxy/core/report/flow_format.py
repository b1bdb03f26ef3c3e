"""Flows that have ended, as /api/v1/flows and the flow log show them, and what can be asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from uproxy.core.cluster.pod_history import Place
from uproxy.core.flows.flow_record import KEPT, FlowRecord
from uproxy.core.timestamps import micro_time_text

DEFAULT_LIMIT: Final = 100
_POSITION: Final = re.compile(r"(\d{1,4})-(\d{1,10})-(\d{1,18})", re.ASCII)
_BOOLEANS: Final = {"": False, "false": False, "0": False, "true": True, "1": True}


class FlowView(msgspec.Struct, rename="camel", gc=False, kw_only=True):
    """One flow that has ended."""

    start: str
    """RFC 3339, in UTC, with microseconds."""
    duration: float
    """Seconds, as are the other times."""
    protocol: str
    client: str
    client_port: int
    frontend: str
    """ADDRESS:PORT that the client has connected to."""
    service: str
    """NAMESPACE/NAME"""
    service_port: str
    backend: str | None
    """ADDRESS:PORT of the last one that was tried; None: none was."""
    pod: str | None
    """Its name; None if the backend is no pod, or it is not known which one."""
    node: str | None
    client_bytes: int
    backend_bytes: int
    dial_time: float
    attempts: int
    code: str
    bad: bool
    reason: str
    client_rtt: float | None
    """None: not known, as for UDP."""
    backend_rtt: float | None
    client_retransmits: int
    backend_retransmits: int
    worker: int
    number: int
    """Of the record, among those of the worker."""


class FlowsView(msgspec.Struct, rename="camel", gc=False):
    """What /api/v1/flows answers."""

    flows: list[FlowView]
    """In the order in which they have ended."""
    cursor: str
    """`after` for a request for those that end later."""
    left_out: int
    """Flows that were asked for too, but are too many."""
    missing: list[str]
    """One line for each worker whose flows are missing, which says why."""


class FlowFilter(NamedTuple):
    """Which flows are asked for; "" is any."""

    namespace: str = ""
    service: str = ""
    """Name of a Service, without its namespace."""
    bad: bool = False
    limit: int = DEFAULT_LIMIT
    """The latest so many."""
    after: str = ""
    """The cursor of an earlier answer."""


class Position(NamedTuple):
    """How far the records of a worker's process have been read."""

    pid: int
    number: int


Cursor = Mapping[int, Position]
"""By the index of the worker."""


class Ended(NamedTuple):
    """A record, and the worker that has it."""

    record: FlowRecord
    worker: int

    @property
    def time(self) -> float:
        """When the flow ended."""
        return self.record.start + self.record.duration


def parse_flow_filter(query: Mapping[str, str]) -> FlowFilter:
    """A filter from the parameters of a URL. Raises ValueError, with what would be right."""
    unknown = sorted(set(query) - set(FlowFilter._fields))
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}: use {', '.join(FlowFilter._fields)}")
    bad = query.get("bad", "").lower()
    if bad not in _BOOLEANS:
        raise ValueError(f"bad is {bad!r}: use true or false")
    limit = query.get("limit", "") or str(DEFAULT_LIMIT)
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 0 < int(limit) <= KEPT):
        raise ValueError(f"limit is {limit!r}: use a number from 1 to {KEPT}")
    after = query.get("after", "")
    parse_cursor(after)
    return FlowFilter(
        query.get("namespace", ""), query.get("service", ""), _BOOLEANS[bad], int(limit), after
    )


def parse_cursor(text: str) -> Cursor:
    """Raises ValueError."""
    found = {}
    for each in text.split(",") if text else ():
        match = _POSITION.fullmatch(each)
        if match is None:
            raise ValueError(f'after is {text!r}: use the "cursor" of an earlier answer')
        worker, pid, number = map(int, match.groups())
        found[worker] = Position(pid, number)
    return found


def cursor_text(cursor: Cursor) -> str:
    """The opposite of `parse_cursor`."""
    return ",".join(f"{worker}-{at.pid}-{at.number}" for worker, at in sorted(cursor.items()))


def merged(parts: Iterable[Iterable[Ended]], limit: int) -> tuple[Sequence[Ended], int]:
    """The latest of all records in the order of their ends, and how many there were before."""
    found = sorted((each for part in parts for each in part), key=lambda each: each.time)
    return found[-limit:], max(len(found) - limit, 0)


def flow_view(ended: Ended, place: Place) -> FlowView:
    """A record for people and scripts."""
    record = ended.record
    frontend, owner, backend = record.frontend, record.owner, record.backend
    return FlowView(
        start=micro_time_text(record.start),
        duration=round(record.duration, 6),
        protocol=frontend.protocol,
        client=record.client,
        client_port=record.client_port,
        frontend=_address(frontend.address, frontend.port),
        service=f"{owner.namespace}/{owner.name}",
        service_port=owner.port,
        backend=_address(*backend) if backend is not None else None,
        pod=place.pod or None,
        node=place.node or None,
        client_bytes=record.client_bytes,
        backend_bytes=record.backend_bytes,
        dial_time=round(record.dial_time, 6),
        attempts=record.attempts,
        code=record.code,
        bad=record.is_bad,
        reason=record.reason,
        client_rtt=_seconds(record.client_rtt),
        backend_rtt=_seconds(record.backend_rtt),
        client_retransmits=record.client_retransmits,
        backend_retransmits=record.backend_retransmits,
        worker=ended.worker,
        number=record.number,
    )


def _address(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _seconds(microseconds: int) -> float | None:
    return microseconds / 1e6 if microseconds else None
