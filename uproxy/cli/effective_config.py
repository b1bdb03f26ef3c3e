"""Makes the Config of `uproxy run` from its flags, UPROXY_* variables and --config file."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from click.core import ParameterSource

from uproxy.cli.flag_types import flag_or_variable
from uproxy.cli.flags import default_workers
from uproxy.config import load_balancer, syntax
from uproxy.config.file import ConfigFileError, load_config
from uproxy.config.settings import Config

_WITH_FILE: Final = frozenset({"config", "hostname_override", "log_format", "verbosity"})
"""Options that are not ignored beside --config, as in kube-proxy: logging and the node's name."""


class Resolved(NamedTuple):
    """What flags, variables and the file say together."""

    config: Config
    warnings: tuple[str, ...]
    """Lines to log once logging is set up."""


def resolve(
    ctx: click.Context, environ: Mapping[str, str] = os.environ, hostname: str | None = None
) -> Resolved:
    """The configuration of a command that has all flags. Raises click.UsageError.

    Without --manifests, `Config.manifests` is empty; the caller decides what that means.
    """
    values = ctx.params
    here = hostname if hostname is not None else socket.gethostname()
    try:
        if values["config"] is not None:
            return _from_file(ctx, values["config"], environ, here)
        config = _from_flags(values)
        name = syntax.node_name(values["hostname_override"], environ, here)
    except ConfigFileError as error:
        raise click.UsageError(f"--config: {error}", ctx) from None
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from None
    return Resolved(replace(config, node_name=name), ())


def _from_flags(values: Mapping[str, Any]) -> Config:
    settings = {
        name: value
        for name, value in values.items()
        if name in Config.__dataclass_fields__ and value is not None
    }
    pool_settings = load_balancer.PoolSettings(
        values["lb"], values["lb_pool"], values["lb_reserve"], values["lb_drain"]
    )
    config = Config(
        **settings,
        lb_mode=load_balancer.effective_mode(pool_settings),
        lb_pools=load_balancer.pools(pool_settings),
        healthz_address=values["healthz_bind_address"],
        metrics_address=values["metrics_bind_address"],
    )
    if config.min_sync_period > config.sync_period:
        raise ValueError(
            f"--min-sync-period: {syntax.format_duration(config.min_sync_period)} is longer than "
            f"--sync-period ({syntax.format_duration(config.sync_period)}); give a shorter time"
        )
    load_balancer.check(config)
    return config


def _from_file(
    ctx: click.Context, path: Path, environ: Mapping[str, str], hostname: str
) -> Resolved:
    loaded = load_config(path, workers=default_workers())
    config = loaded.config
    name = ctx.params["hostname_override"] or config.node_name
    config = replace(config, node_name=syntax.node_name(name, environ, hostname))
    explicit = set(_explicitly_set(ctx))
    for field in {"log_format", "verbosity"} & explicit:
        config = replace(config, **{field: ctx.params[field]})
    ignored = [
        flag_or_variable(param, ctx)
        for param in ctx.command.params
        if param.name in explicit - _WITH_FILE
    ]
    if not ignored:
        return Resolved(config, loaded.warnings)
    warning = f"ignored because --config {path} is given: {', '.join(ignored)}"
    return Resolved(config, (*loaded.warnings, warning))


def _explicitly_set(ctx: click.Context) -> Iterable[str]:
    """Options that have been set on the command line or by a variable."""
    explicit = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    return [name for name in ctx.params if ctx.get_parameter_source(name) in explicit]
