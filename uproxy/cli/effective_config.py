"""Makes the Config of `uproxy run` from its flags, UPROXY_* variables and --config file."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import click
from click.core import ParameterSource

from uproxy.cli.flag_types import flag_or_variable
from uproxy.cli.flags import default_workers
from uproxy.config import syntax
from uproxy.config.combine import Combined, combine
from uproxy.config.fields import FIELDS
from uproxy.config.file import ConfigFileError, Loaded, load_config
from uproxy.config.given import Given, Options, Source
from uproxy.config.settings import Config
from uproxy.text.document import join_parts

_SOURCES: Final = {
    ParameterSource.COMMANDLINE: Source.FLAG,
    ParameterSource.ENVIRONMENT: Source.VARIABLE,
}
_NODE_NAME: Final = "NODE_NAME"
"""What the downward API sets, in deploy/kustomize."""


class Resolved(NamedTuple):
    """What flags, variables and the file say together."""

    config: Config
    warnings: tuple[str, ...]
    """Lines to log once logging is set up."""


def resolve(
    ctx: click.Context,
    environ: Mapping[str, str] = os.environ,
    hostname: str | None = None,
    *,
    patience: float = 10.0,
) -> Resolved:
    """The configuration of a command that has all flags. It may be called again, and reads the file
    each time, waiting for `patience` seconds if it is a pipe. Raises click.UsageError.

    Without --manifests, `Config.manifests` is empty; the caller decides what that means.
    """
    here = hostname if hostname is not None else socket.gethostname()
    path = ctx.params["config"]
    try:
        loaded = load_config(path, patience) if path is not None else Loaded({}, ())
        combined = combine(loaded.given, dict(_given(ctx)))
        config = _with_defaults(combined, environ, here)
    except ConfigFileError as error:
        raise click.UsageError(f"--config: {error}", ctx) from None
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from None
    return Resolved(config, (*loaded.warnings, *combined.notes))


def _given(ctx: click.Context) -> Iterator[tuple[str, Given]]:
    """Options that have been set on the command line or by a variable."""
    for param in ctx.command.params:
        name = param.name or ""
        source = _SOURCES.get(ctx.get_parameter_source(name) or ParameterSource.DEFAULT)
        if source is not None and name in FIELDS:
            yield name, Given(ctx.params[name], source, flag_or_variable(param, ctx))


def _with_defaults(combined: Combined, environ: Mapping[str, str], hostname: str) -> Config:
    """The configuration with what depends on this machine."""
    config, used, _ = combined
    name = syntax.node_name(config.node_name, environ, hostname)
    workers = config.workers if "workers" in used else default_workers()
    origins = dict(_origins(used))
    if "hostname_override" not in used and environ.get(_NODE_NAME, "").strip():
        origins["hostnameOverride"] = f"variable {_NODE_NAME}"
    return replace(config, node_name=name, workers=workers, origins=origins)


def _origins(used: Options) -> Iterator[tuple[str, str]]:
    for option, given in used.items():
        yield join_parts(FIELDS[option]), str(given)
