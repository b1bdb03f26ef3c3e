"""What is wrong, or odd, with manifests: `uproxy check` prints it, and `uproxy run` logs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from uproxy.core.brief import brief
from uproxy.core.cluster.objects import Object, ObjectName

_LOGGED: Final = 20
"""How many findings that come at the same time are logged one by one."""


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Something that the manifests ask for cannot be served."""
    WARNING = "warning"
    """Everything is served, but perhaps not as its author wants it."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One thing that is wrong, or odd."""

    severity: Severity
    file: str = ""
    """A file or a directory; "": the manifests as a whole."""
    line: int = 0
    """Counted from 1; 0: the file as a whole."""
    object: str = ""
    """As "Service default/web"; "": none, or one that cannot be read."""
    field: str = ""
    """As "spec.ports[0].nodePort"; "": the object as a whole."""
    reason: str
    see: str = ""
    """Another place that matters, as "FILE:LINE"; "": none."""

    @property
    def where(self) -> str:
        """The file and the line."""
        return str(Place(self.file, self.line))

    @property
    def text(self) -> str:
        """Everything but the place."""
        see = f" (see {self.see})" if self.see else ""
        return ": ".join(filter(None, (self.object, self.field, self.reason))) + see

    @property
    def identity(self) -> tuple[str, ...]:
        """What two findings have in common that are the same one, although the lines above it have
        changed."""
        return (self.severity, self.file, self.object, self.field, self.reason)


class Place(NamedTuple):
    """Where a manifest says something."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


Locate = Callable[[type[Object], ObjectName, str], Place]
"""Returns the place of a field of an object, or that of the object where it has no such field."""


def finding(
    severity: Severity,
    reason: str,
    *,
    file: str = "",
    line: int = 0,
    obj: str = "",
    field: str = "",
    see: str = "",
) -> Finding:
    """A finding whose texts, which may quote a file, are short enough to be shown."""
    return Finding(
        severity=severity,
        file=file,
        line=line,
        object=brief(obj),
        field=brief(field),
        reason=brief(reason),
        see=see,
    )


def new_lines(before: Iterable[Finding], now: Sequence[Finding]) -> Iterator[str]:
    """Lines for the log about findings that are new."""
    known = {each.identity for each in before}
    new = [each for each in now if each.identity not in known]
    for each in new[:_LOGGED]:
        yield ": ".join(filter(None, (each.where, each.text)))
    more = len(new) - _LOGGED
    if more > 0:
        yield f"and {more:,} more findings in manifests; uproxy check lists them"
