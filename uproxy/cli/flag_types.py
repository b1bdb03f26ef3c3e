"""The types of flags, for click; the functions in `uproxy.config.syntax` parse them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from uproxy.config import syntax

F = TypeVar("F", bound=Callable[..., Any])


class FlagType(click.ParamType[object]):
    """Parses the text of a flag; an error becomes one line that names the flag."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """The parsed value; a default that is no text stays. Raises click.UsageError."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            name = f"{flag_or_variable(param, ctx)}: " if param is not None else ""
            raise click.UsageError(f"{name}{error}", ctx) from None


class PathType(FlagType):
    """A path; in a variable, several paths are separated by ":"."""

    envvar_list_splitter = os.path.pathsep

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """The shell itself knows files."""
        return [CompletionItem(incomplete, type="file")]


DURATION: Final = FlagType("duration", syntax.parse_duration)
POSITIVE_DURATION: Final = FlagType("duration", syntax.positive_duration)


def flag_or_variable(param: click.Parameter, ctx: click.Context | None) -> str:
    """The name of a flag, or of its variable if the value comes from there."""
    if ctx is not None and param.name is not None and isinstance(param.envvar, str):
        source = ctx.get_parameter_source(param.name)
        if source is ParameterSource.ENVIRONMENT:
            return param.envvar
    return max(param.opts, key=len)


def number(name: str, least: int, most: int, example: str) -> FlagType:
    """A whole number in a range."""
    return FlagType(name, lambda text: syntax.parse_whole_number(text, least, most, example))


def address(default_port: int) -> FlagType:
    """An IP address and a port, or None for ""."""
    return FlagType("address", lambda text: syntax.parse_address(text, default_port))


def choice(name: str, choices: Sequence[str]) -> FlagType:
    """One of a few words; if these are members of an enumeration, so is the value."""
    members = {str(each): each for each in choices}
    return FlagType(name, lambda text: members[syntax.parse_choice(text, list(members))])


def _joined(
    ctx: click.Context, param: click.Parameter, values: tuple[tuple[str, ...], ...]
) -> tuple[str, ...]:
    """The items of a list, whose flag may be repeated and may have several items each time."""
    return tuple(each for value in values for each in value)


def option(*names: str, kind: FlagType, **settings: Any) -> Callable[[F], F]:
    """A flag, which is a variable too."""
    variable = "UPROXY_" + names[-1].removeprefix("--").replace("-", "_").upper()
    return click.option(*names, type=kind, envvar=variable, **settings)


def list_option(name: str, kind: FlagType, help: str) -> Callable[[F], F]:
    """A flag that may be repeated, with several items each time. A variable has spaces between
    what repeated flags would say."""
    return option(name, kind=kind, help=help, multiple=True, callback=_joined, metavar="LIST")


def time_option(
    name: str, default: float, help: str, kind: FlagType = DURATION
) -> Callable[[F], F]:
    """A flag whose value is a duration."""
    text = syntax.format_duration(default)
    return option(name, kind=kind, default=text, show_default=True, metavar="DURATION", help=help)
