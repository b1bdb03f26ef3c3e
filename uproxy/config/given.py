"""One option as a flag, a variable or the configuration file gives it.

An option has the name of its flag, with underscores: `lb_pool` is --lb-pool, UPROXY_LB_POOL, and
`lbPools` in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from uproxy.core.brief import brief


class Source(IntEnum):
    """Where a value comes from; the greater one wins."""

    FILE = 1
    VARIABLE = 2
    FLAG = 3


class Given(NamedTuple):
    """A value, and where it comes from."""

    value: Any
    source: Source
    name: str
    """Of the flag, the variable, or the field with its path."""
    where: str = ""
    """FILE:LINE, for a field."""

    def __str__(self) -> str:
        if self.source is Source.FILE:
            return f"{self.name} in {self.where}"
        return f"variable {self.name}" if self.source is Source.VARIABLE else f"flag {self.name}"

    @property
    def blamed(self) -> str:
        """How an error about the value begins."""
        return f"--config: {self.where}: {self.name}" if self.where else self.name


Options = Mapping[str, Given]
"""By the name of the option."""


class WrongSetting(ValueError):
    """A setting that contradicts another one."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"{flag_of(option)}: {reason}")
        self.option = option
        self.reason = reason

    def explained(self, given: Options) -> str:
        """One line that begins with the flag, the variable or the field that is wrong."""
        if self.option not in given:
            return brief(str(self))
        return f"{given[self.option].blamed}: {brief(self.reason)}"


def flag_of(option: str) -> str:
    """The flag of an option."""
    return f"--{option.replace('_', '-')}"
