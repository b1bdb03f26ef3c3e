"""Variables in the environment that look like options of uproxy, but are not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from typing import Final

import click

_PREFIX: Final = "UPROXY_"
_OF_OTHERS: Final = frozenset({"UPROXY_URL", "UPROXY_PYTHON"})
"""Those of other commands than `run`, and of the program that deploy/build-rootfs.sh writes."""
_SERVICE_LINK: Final = re.compile(
    r"UPROXY_(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_[A-Z]+(?:_PROTO|_PORT|_ADDR)?)?)"
)
"""What kubelet gives every Pod of a namespace that has a Service named uproxy, or uproxy-metrics
(enableServiceLinks). There, a Service may have any name that begins like our variables."""


def unknown_variables(environ: Collection[str], command: click.Command) -> Iterator[str]:
    """One line for each variable that looks like an option of `command`, but is not one."""
    known = _OF_OTHERS.union(_variables(command))
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or name in known or _SERVICE_LINK.fullmatch(name):
            continue
        meant = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        advice = f"did you mean {meant[0]}?" if meant else "see: uproxy run --help"
        yield f"the variable {name} has no effect, as there is no option of that name; {advice}"


def _variables(command: click.Command) -> Iterator[str]:
    return (each.envvar for each in command.params if isinstance(each.envvar, str))
