"""What `uproxy flows` prints: a line for each flow that has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, tzinfo
from typing import Final, NamedTuple

import click

from uproxy.cli.output.columns import paragraph
from uproxy.cli.output.numbers import byte_size, counted, duration
from uproxy.core.report.flow_codes import code_text
from uproxy.core.report.flow_format import FlowView

_GAP: Final = "  "
_NONE: Final = "-"
_REASON: Final = "REASON"
_ROOM_FOR_REASON: Final = 21
"""Characters that names leave to it: ECONNREFUSED, 4 dials."""
_NARROW: Final = 110
"""Terminals with fewer columns show pods only where a flow ended badly."""
_BELOW: Final = "    "


class _Column(NamedTuple):
    name: str
    cell: Callable[[FlowView], str]
    right: bool = False
    least: int = 0
    """Characters to which a name may be shortened; 0: it is never."""


class FlowTable:
    """Keeps the widths of its columns, so that flows which are printed later fit in."""

    def __init__(
        self,
        *,
        wide: bool = False,
        width: int | None = None,
        colours: bool = False,
        zone: tzinfo | None = None,
        today: date | None = None,
    ) -> None:
        """`width`: of the terminal; None: lines may have any length. `zone`: for the times; None:
        that of this machine. Flows that began before `today` have their date."""
        self._wide = wide
        self._width = None if wide else width
        self._colours = colours
        self._zone = zone
        self._today = today
        narrow = self._width is not None and self._width < _NARROW
        self._columns = (
            _Column("START", self._start),
            *(_WIDE if wide else _COLUMNS if not narrow else _NARROW_COLUMNS),
        )
        self._reason = _reason_with_pod if narrow else _reason
        self._room_for_reason = 0 if narrow else _ROOM_FOR_REASON
        self._widths = [len(each.name) for each in self._columns]
        self._begun = False

    def lines(self, flows: Sequence[FlowView]) -> Iterator[str]:
        """The head, before the first flow of all, and a line for each flow. A reason that finds no
        room is in a line below."""
        rows = [[column.cell(flow) for column in self._columns] for flow in flows]
        reasons = [self._reason(flow) for flow in flows]
        for row in rows:
            self._widths = [max(w, len(cell)) for w, cell in zip(self._widths, row, strict=True)]
        widths = self._fitted(max(map(len, (_REASON, *reasons))))
        if rows and not self._begun:
            self._begun = True
            head = self._aligned([each.name for each in self._columns], widths, bad=False)
            fits = self._width is None or len(head) + len(_GAP + _REASON) <= self._width
            yield head + _GAP + _REASON if fits else head.rstrip()
        for flow, row, reason in zip(flows, rows, reasons, strict=True):
            line = self._aligned(row, widths, bad=flow.bad)
            yield from self._with_reason(line, sum(widths) + len(_GAP) * len(widths), reason)

    def _fitted(self, reason: int) -> list[int]:
        """The widths of columns, with names as short as they have to be."""
        widths = list(self._widths)
        if self._width is None:
            return widths
        excess = sum(widths) + len(_GAP) * len(widths) + min(reason, self._room_for_reason)
        excess -= self._width
        while excess > 0:
            names = [
                (width, at)
                for at, (width, each) in enumerate(zip(widths, self._columns, strict=True))
                if each.least and width > each.least
            ]
            if not names:
                break
            widths[max(names)[1]] -= 1
            excess -= 1
        return widths

    def _aligned(self, row: Sequence[str], widths: Sequence[int], *, bad: bool) -> str:
        cells = []
        for column, cell, width in zip(self._columns, row, widths, strict=True):
            text = shortened(cell, width)
            text = text.rjust(width) if column.right else text.ljust(width)
            red = bad and self._colours and column.name == _CODE.name
            cells.append(click.style(text, fg="red") if red else text)
        return _GAP.join(cells)

    def _with_reason(self, line: str, used: int, reason: str) -> Iterator[str]:
        if self._width is None or used + len(reason) <= self._width:
            yield (line + _GAP + reason).rstrip()
        else:
            yield line.rstrip()
            for each in paragraph(reason, width=self._width - len(_BELOW)):
                yield _BELOW + each

    def _start(self, flow: FlowView) -> str:
        try:
            start = datetime.fromisoformat(flow.start).astimezone(self._zone)
        except (ValueError, OverflowError):
            return flow.start
        if self._wide:
            return f"{start:%Y-%m-%d %H:%M:%S}.{start.microsecond // 1000:03}"
        earlier = self._today is not None and start.date() != self._today
        return f"{start:%b %d %H:%M}" if earlier else f"{start:%H:%M:%S}"


def legend(flows: Iterable[FlowView], *, width: int | None) -> Iterator[str]:
    """What the codes of bad ends mean, each once."""
    for code in sorted({each.code for each in flows if each.bad}):
        text = code_text(code)
        if text:
            yield from paragraph(f"{code}: {text}", width=width, indent=_BELOW)


def shortened(name: str, room: int) -> str:
    """A name that loses its middle if it is too long: what tells pods apart is at the end."""
    if len(name) <= room:
        return name
    end = (room - 2) // 2
    return f"{name[: room - end - 2]}..{name[len(name) - end :]}"


def _time(seconds: float) -> str:
    return duration(seconds).replace(" ", "")


def _service(flow: FlowView) -> str:
    return f"{flow.service}:{flow.service_port}" if flow.service_port else flow.service


def _dial(flow: FlowView) -> str:
    return _time(flow.dial_time) if flow.backend else _NONE


def _rtts(flow: FlowView) -> str:
    known = (flow.client_rtt, flow.backend_rtt)
    return "/".join(_time(each) if each is not None else _NONE for each in known)


def _reason(flow: FlowView) -> str:
    dials = f"{flow.attempts} dials" if flow.attempts > 1 else ""
    return ", ".join(filter(None, (flow.reason, dials)))


def _reason_with_pod(flow: FlowView) -> str:
    if not flow.bad:
        return ""
    pod = flow.pod or flow.backend or ""
    return ": ".join(filter(None, (pod, _reason(flow))))


_LASTED: Final = _Column("LASTED", lambda flow: _time(flow.duration), right=True)
_CLIENT: Final = _Column("CLIENT", lambda flow: flow.client)
_SERVICE: Final = _Column("SERVICE", _service, least=12)
_POD: Final = _Column("POD", lambda flow: flow.pod or flow.backend or _NONE, least=18)
_IN: Final = _Column("IN", lambda flow: byte_size(flow.client_bytes), right=True)
_OUT: Final = _Column("OUT", lambda flow: byte_size(flow.backend_bytes), right=True)
_DIAL: Final = _Column("DIAL", _dial, right=True)
_CODE: Final = _Column("CODE", lambda flow: flow.code)
_COLUMNS: Final = (_LASTED, _CLIENT, _SERVICE, _POD, _IN, _OUT, _DIAL, _CODE)
_NARROW_COLUMNS: Final = (_LASTED, _CLIENT, _SERVICE, _IN, _OUT, _CODE)
_WIDE: Final = (
    _LASTED,
    _Column("CLIENT", lambda flow: _with_port(flow.client, flow.client_port)),
    _Column("FRONTEND", lambda flow: f"{flow.frontend}/{flow.protocol}"),
    _Column("SERVICE", _service),
    _Column("POD", lambda flow: flow.pod or _NONE),
    _Column("NODE", lambda flow: flow.node or _NONE),
    _Column("BACKEND", lambda flow: flow.backend or _NONE),
    _IN,
    _OUT,
    _DIAL,
    _Column("RTT", _rtts),
    _Column("RESENT", lambda flow: f"{flow.client_retransmits}/{flow.backend_retransmits}"),
    _CODE,
)


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def left_out(number: int) -> str:
    """Says that not all flows are shown."""
    return f"{counted(number, 'more flow')} ended meanwhile, too many to show"
