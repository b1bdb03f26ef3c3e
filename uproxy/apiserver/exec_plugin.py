"""Credentials from a program that a kubeconfig names under `exec` (KEP-541)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from uproxy.apiserver.access import ExecPlugin
from uproxy.apiserver.plugin_process import MOST, run_program
from uproxy.core.brief import brief, brief_name
from uproxy.text.json_text import UNREADABLE

_PATIENCE = 60.0
"""Seconds that a plugin may take. Some of them log in to a cloud."""
_SKEW = timedelta(seconds=30)
"""Credentials are renewed this long before they expire."""
_ZERO_TIME = datetime.min.replace(tzinfo=UTC)
"""The zero value of time in Go, which plugins print when there is no expiry. client-go reads it
so."""


class PluginError(Exception):
    """The plugin has issued no credentials; the message is the reason, in one line."""


class IssuedCredential(NamedTuple):
    """A token, a client certificate with its key, or both."""

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""
    expires: datetime | None = None
    """None: they are valid until the server refuses them."""

    def __repr__(self) -> str:
        # Without the token and the key, which must not get into a log.
        return f"IssuedCredential(expires={self.expires})"

    def expired(self, now: datetime) -> bool:
        # The difference is compared, because `expires - _SKEW` overflows in the year 1.
        return self.expires is not None and self.expires - now <= _SKEW


class _Status(msgspec.Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class _Credential(msgspec.Struct, rename="camel"):
    api_version: str
    status: _Status


async def obtain_credential(
    plugin: ExecPlugin, environ: Mapping[str, str] = os.environ, patience: float = _PATIENCE
) -> IssuedCredential:
    """Run a plugin, which has no terminal to ask questions. Raises PluginError.

    Its output is never logged or shown, not even where it fails, because it may contain a secret.
    """
    name = _name(plugin)
    try:
        ended = await run_program(
            (plugin.command, *plugin.args),
            {**environ, **plugin.env, "KUBERNETES_EXEC_INFO": request_for(plugin)},
            patience=patience,
        )
    except TimeoutError:
        raise PluginError(f"{name} has not ended after {patience:g} s") from None
    except OSError as error:
        hint = f"; {brief(plugin.install_hint)}" if plugin.install_hint else ""
        raise PluginError(f"cannot run {name}: {error.strerror}{hint}") from None
    except ValueError:
        raise PluginError(
            f"cannot run {name}: its arguments or its env are not valid text"
        ) from None
    if len(ended.output) > MOST:
        raise PluginError(f"{name} printed more than {MOST >> 20} MiB")
    if ended.status:
        ending = (
            f"exited with code {ended.status}"
            if ended.status > 0
            else f"was killed by signal {-ended.status}"
        )
        raise PluginError(f"{name} {ending}; run it by hand to see why")
    return read_credential(plugin, ended.output)


def request_for(plugin: ExecPlugin) -> str:
    """The ExecCredential that the plugin finds in KUBERNETES_EXEC_INFO."""
    spec: dict[str, Any] = {"interactive": False}
    if plugin.cluster is not None:
        spec["cluster"] = plugin.cluster
    request = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    return msgspec.json.encode(request).decode()


def read_credential(plugin: ExecPlugin, output: bytes) -> IssuedCredential:
    """The credential in the output of a plugin. Raises PluginError."""
    name = _name(plugin)
    try:
        credential = msgspec.json.decode(output, type=_Credential)
    except UNREADABLE as error:
        raise PluginError(f"{name} printed no ExecCredential: {brief(str(error))}") from None
    if credential.api_version != plugin.api_version:
        raise PluginError(f"{name} uses another API version than {brief_name(plugin.api_version)}")
    status = credential.status
    certificate, key = status.client_certificate_data or "", status.client_key_data or ""
    if bool(certificate) != bool(key):
        raise PluginError(
            f"{name} issued a certificate without a key, or a key without a certificate"
        )
    if not status.token and not certificate:
        raise PluginError(f"{name} issued neither a token nor a certificate")
    expires = status.expiration_timestamp
    if expires is not None and expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    if expires == _ZERO_TIME:
        expires = None
    return IssuedCredential(status.token or "", certificate.encode(), key.encode(), expires)


def _name(plugin: ExecPlugin) -> str:
    return brief_name(plugin.command)
