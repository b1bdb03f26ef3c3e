"""Types of option values for click, made from the functions in `uproxy.config.syntax`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import click
from click.core import ParameterSource

from uproxy.config import syntax


class Value(click.ParamType[object]):
    """A value that `parse` understands. What it does not becomes one line that names the flag."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """The value; what is no text is a default and stays. Raises click.UsageError."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            name = f"{told_by(param, ctx)}: " if param is not None else ""
            raise click.UsageError(f"{name}{error}", ctx) from None


class PathValue(Value):
    """Several paths in a variable have ":" between them."""

    envvar_list_splitter = os.path.pathsep


DURATION: Final = Value("duration", syntax.parse_duration)
POSITIVE_DURATION: Final = Value("duration", syntax.positive_duration)


def told_by(param: click.Parameter, ctx: click.Context | None) -> str:
    """The name of a flag, or of the variable where that is what was set."""
    if ctx is not None and param.name is not None and isinstance(param.envvar, str):
        source = ctx.get_parameter_source(param.name)
        if source is ParameterSource.ENVIRONMENT:
            return param.envvar
    return max(param.opts, key=len)


def number(name: str, least: int, most: int, example: str) -> Value:
    """A whole number in a range."""
    return Value(name, lambda text: syntax.parse_whole_number(text, least, most, example))


def address(default_port: int) -> Value:
    """IP:port, or None."""
    return Value("address", lambda text: syntax.parse_address(text, default_port))


def choice(name: str, choices: Sequence[str]) -> Value:
    """One of a few words; members of an enumeration stay members."""
    members = {str(each): each for each in choices}
    return Value(name, lambda text: members[syntax.parse_choice(text, list(members))])
