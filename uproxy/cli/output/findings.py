"""What `uproxy check` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from uproxy.cli.output.columns import Paint, paragraph
from uproxy.core.printable import printable
from uproxy.core.report.findings import Finding, Severity

_INDENT = "    "


class Summary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was checked."""

    files: int
    objects: Mapping[str, int]
    """By kind: how many there are."""
    other_objects: int
    """Of kinds that are not used."""
    errors: int
    warnings: int


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Everything: what -o json prints."""

    summary: Summary
    findings: Sequence[Finding]


def lines(report: Report, *, width: int | None, paint: Paint) -> Iterator[str]:
    """A line for each finding, as compilers write them, and a summary."""
    for each in report.findings:
        yield from _finding(each, width, paint)
    if report.findings:
        yield ""
    yield from paragraph(_summary(report.summary), width=width)


def _finding(each: Finding, width: int | None, paint: Paint) -> Iterator[str]:
    place = printable(f"{each.where}: ") if each.where else ""
    first, *more = paragraph(
        f"{place}{each.severity}: {printable(each.text)}", width=width, indent=_INDENT
    )
    start = f"{place}{each.severity}"
    # On a narrow screen the line may end before that.
    if first.startswith(start):
        first = f"{place}{paint(each.severity)}{first[len(start) :]}"
    yield first
    yield from more


def _summary(summary: Summary) -> str:
    found = [_count(number, kind) for kind, number in sorted(summary.objects.items())]
    objects = ", ".join(found) or "no Services"
    files = _count(summary.files, "file")
    text = f"{files}: {objects}"
    if summary.other_objects:
        text += f"; {_count(summary.other_objects, 'object')} of kinds that uproxy does not use"
    errors, warnings = summary.errors, summary.warnings
    if not errors and not warnings:
        return f"{text}. Nothing is wrong{'' if found else ', and nothing is served'}."
    return f"{text}. {_count(errors, 'error')}, {_count(warnings, 'warning')}."


def _count(number: int, word: str) -> str:
    plural = "" if number == 1 or word.endswith("points") else "s"
    return f"{number:,} {word}{plural}"


def report(
    findings: Iterable[Finding], *, files: int, kinds: Mapping[str, int], ignored: int
) -> Report:
    """The findings by file and line."""
    found = sorted(findings, key=lambda each: (each.file, each.line))
    counts = Counter(each.severity for each in found)
    return Report(
        summary=Summary(
            files=files,
            objects=dict(kinds),
            other_objects=ignored,
            errors=counts[Severity.ERROR],
            warnings=counts[Severity.WARNING],
        ),
        findings=found,
    )
