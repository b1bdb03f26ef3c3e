"""Variables that are named like options, and are none."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click
import pytest

from uproxy.cli import uproxy
from uproxy.cli.commands import run
from uproxy.cli.variables import unknown_variables


def told(*names: str) -> list[str]:
    return list(unknown_variables(names, run.command))


def test_a_misspelt_one_is_told_with_the_right_one() -> None:
    assert told("UPROXY_WROKERS") == [
        "the variable UPROXY_WROKERS has no effect, as there is no option of that name; did you "
        "mean UPROXY_WORKERS?"
    ]


def test_one_that_resembles_none() -> None:
    (line,) = told("UPROXY_FRUIT")
    assert line.endswith("see: uproxy run --help")


@pytest.mark.parametrize(
    "service",
    ["UPROXY", "UPROXY_METRICS", "UPROXY_2"],
    ids=["uproxy", "uproxy-metrics", "uproxy-2"],
)
def test_variables_of_services_are_none_of_ours(service: str) -> None:
    """What kubelet sets for two ports, of which one has a name."""
    port = f"{service}_PORT"
    links = [f"{service}_SERVICE_HOST", f"{service}_SERVICE_PORT", port]
    links += [f"{service}_SERVICE_PORT_METRICS_HTTP"]
    for number in (f"{port}_10249_TCP", f"{port}_53_UDP", f"{port}_9_SCTP"):
        links += [number, f"{number}_PROTO", f"{number}_PORT", f"{number}_ADDR"]
    assert told(*links) == []


def test_variables_of_all_commands_are_known() -> None:
    names = {each.envvar for each in _options() if isinstance(each.envvar, str)}
    assert "UPROXY_URL" in names
    assert told(*names, "UPROXY_PYTHON", "_UPROXY_COMPLETE", "PATH") == []


def _options() -> Iterator[click.Parameter]:
    for name in uproxy.list_commands(click.Context(uproxy)):
        yield from importlib.import_module(f"uproxy.cli.commands.{name}").command.params
