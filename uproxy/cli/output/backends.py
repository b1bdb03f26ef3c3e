"""What `uproxy explain` prints about the backends of a Service port."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from uproxy.cli.output.columns import Paint, columns, plain
from uproxy.cli.output.numbers import amount, byte_size, counted, duration
from uproxy.core.report.backends import BackendState
from uproxy.core.report.port_format import BackendView, PortView

_HEAD: Final = ("", "POD", "ADDRESS", "STATE", "FLOWS", "ACTIVE", "FAILED", "REMARKS")
_RIGHT: Final = frozenset({4, 5, 6})
_POD: Final = 1
_MOST: Final = 20
_NAMED: Final = 3
"""How many pods are named where failed attempts are counted."""


def backend_table(
    port: PortView,
    failing: Collection[str],
    *,
    workers: int,
    width: int | None = None,
    paint: Paint = plain,
) -> Iterator[str]:
    """An empty line and a row for each backend, those that fail first; nothing if there are none.
    `failing` are addresses that have not answered for a while."""
    if not port.backends:
        return
    ordered = sorted(port.backends, key=lambda each: _urgency(each, failing))
    rows = [_row(each, failing, workers) for each in ordered[:_MOST]]
    head: tuple[str, ...] = _HEAD
    right = _RIGHT
    if not any(row[_POD] for row in rows):
        head, rows = _without_pod(head), [_without_pod(row) for row in rows]
        right = frozenset(column - 1 for column in _RIGHT)
    yield ""
    yield from columns(head, rows, width=width, paint=paint, right=right)
    if len(ordered) > _MOST:
        yield f"  ... and {len(ordered) - _MOST:,} more: -o json"


def failed_dials(port: PortView) -> str:
    """Which backends have failed most often, as "web-1: 48"; "": none has."""
    found = [each for each in port.backends if each.failures]
    found.sort(key=lambda each: -failures(each))
    texts = [f"{each.pod or each.address}: {amount(failures(each))}" for each in found[:_NAMED]]
    if len(found) > _NAMED:
        texts.append(f"{len(found) - _NAMED:,} more")
    return ", ".join(texts)


def failures(each: BackendView) -> int:
    """How many attempts to reach a backend have failed."""
    return sum(each.failures.values())


def pod_names(ports: Sequence[PortView]) -> Mapping[str, str]:
    """The names of pods by ADDRESS:PORT."""
    return {each.address: each.pod for port in ports for each in port.backends if each.pod}


def clock(text: str) -> str:
    """A time of the API for people: 2026-11-22T12:03:04Z is 2026-11-22 12:03:04 UTC."""
    return text.replace("T", " ").replace("Z", " UTC")


def _urgency(each: BackendView, failing: Collection[str]) -> tuple[bool, bool, bool]:
    aside = each.state == BackendState.ASIDE
    return each.address not in failing, not aside, not each.failures


def _row(each: BackendView, failing: Collection[str], workers: int) -> tuple[str, ...]:
    return (
        "",
        each.pod,
        each.address,
        each.state,
        amount(each.flows),
        amount(each.active_flows),
        amount(failures(each)),
        "; ".join(_remarks(each, failing, workers)),
    )


def _without_pod(row: tuple[str, ...]) -> tuple[str, ...]:
    return row[:_POD] + row[_POD + 1 :]


def _remarks(each: BackendView, failing: Collection[str], workers: int) -> Iterator[str]:
    if each.address in failing:
        yield "does not answer"
    if each.aside_until is not None:
        _, _, until = clock(each.aside_until).partition(" ")
        by = f"{each.aside_workers} of {counted(workers, 'worker')}"
        yield f"gets no new flow until {until} from {by}"
    elif each.reason:
        yield each.reason
    if each.failures:
        yield _errors(each)
    if each.connect_p50 is not None and each.connect_p99 is not None:
        yield f"connects in {duration(each.connect_p50)} (p99 {duration(each.connect_p99)})"
    if each.client_bytes or each.backend_bytes:
        yield f"{byte_size(each.client_bytes)} in, {byte_size(each.backend_bytes)} out"
    place = " in zone ".join(filter(None, (each.node, each.zone)))
    if place:
        yield f"on {place}" if each.node else f"in zone {each.zone}"


def _errors(each: BackendView) -> str:
    """Failed attempts by what they failed with, and when the last one was."""
    numbers = sorted(each.failures.items(), key=lambda item: -item[1])
    text = ", ".join(f"{amount(number)} {_error(name)}" for name, number in numbers)
    last = "the last" if len(numbers) == 1 else f"the last, {each.last_error},"
    return f"{text}, {last} at {clock(each.last_error_at)}" if each.last_error_at else text


def _error(name: str) -> str:
    code = getattr(errno, name, None)
    return f"{name} ({os.strerror(code).lower()})" if isinstance(code, int) else name
