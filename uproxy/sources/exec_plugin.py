"""Credentials from a program, as kubeconfig's `exec` names one (KEP-541)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from uproxy.sources.access import ExecPlugin
from uproxy.sources.watchstream import UNREADABLE

_PATIENCE = 60.0
"""Seconds that a plugin may take: some go through a cloud's login."""
_SKEW = timedelta(seconds=30)
"""Credentials are renewed so long before they expire."""
_ZERO_TIME = datetime.min.replace(tzinfo=UTC)
"""What plugins in Go print for no time at all; client-go takes it so."""


class PluginError(Exception):
    """The plugin has issued nothing; the reason in one line."""


class Issued(NamedTuple):
    """What a plugin has issued: a token, a client certificate with its key, or both."""

    token: str = ""
    certificate: bytes = b""
    key: bytes = b""
    expires: datetime | None = None
    """None: when the server refuses it."""

    def expired(self, now: datetime) -> bool:
        # Not by another time: one in the first year or the last has none before or after it.
        return self.expires is not None and self.expires - now <= _SKEW


class _Status(msgspec.Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class _Credential(msgspec.Struct, rename="camel"):
    api_version: str
    status: _Status


async def issue(
    plugin: ExecPlugin, environ: Mapping[str, str] = os.environ, patience: float = _PATIENCE
) -> Issued:
    """Run a plugin, which cannot ask anybody anything. Raises PluginError."""
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.args,
            env={**environ, **plugin.env, "KUBERNETES_EXEC_INFO": request_for(plugin)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = f"; {plugin.install_hint.strip()}" if plugin.install_hint else ""
        raise PluginError(f"cannot run {plugin.command}: {error.strerror}{hint}") from None
    try:
        async with asyncio.timeout(patience):
            output, complaint = await process.communicate()
    except TimeoutError:
        raise PluginError(f"{plugin.command} has not ended after {patience:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = complaint.decode(errors="replace").strip().splitlines() or ["no message"]
        raise PluginError(f"{plugin.command} ended with {process.returncode}: {lines[-1]}")
    return read_credential(plugin, output)


def request_for(plugin: ExecPlugin) -> str:
    """The ExecCredential that the plugin finds in its environment."""
    spec: dict[str, Any] = {"interactive": False}
    if plugin.cluster is not None:
        spec["cluster"] = plugin.cluster
    request = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    return msgspec.json.encode(request).decode()


def read_credential(plugin: ExecPlugin, output: bytes) -> Issued:
    """What the plugin has printed. Raises PluginError."""
    try:
        credential = msgspec.json.decode(output, type=_Credential)
    except UNREADABLE as error:
        raise PluginError(f"{plugin.command} printed no ExecCredential: {error}") from None
    if credential.api_version != plugin.api_version:
        found = credential.api_version
        raise PluginError(f"{plugin.command} speaks {found}, not {plugin.api_version}")
    status = credential.status
    certificate, key = status.client_certificate_data or "", status.client_key_data or ""
    if bool(certificate) != bool(key):
        raise PluginError(f"{plugin.command} issued a certificate without its key, or the reverse")
    if not status.token and not certificate:
        raise PluginError(f"{plugin.command} issued neither a token nor a certificate")
    expires = status.expiration_timestamp
    if expires is not None and expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    if expires == _ZERO_TIME:
        expires = None
    return Issued(status.token or "", certificate.encode(), key.encode(), expires)
