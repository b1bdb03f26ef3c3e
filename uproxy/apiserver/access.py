"""How a cluster is reached, and as whom: the result of looking for credentials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Pem = Path | bytes
"""Certificates or a key: in a file, which may be replaced at any time, or here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecPlugin:
    """A program that issues credentials (client.authentication.k8s.io)."""

    api_version: str
    command: str
    """Absolute, or to be searched in PATH."""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    install_hint: str = ""
    cluster: Mapping[str, Any] | None = None
    """What to tell it about the cluster, where it wants to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One cluster and one user."""

    origin: str
    """Where this was found, for messages."""
    server: str
    """http(s)://HOST:PORT, without a slash at the end, a user or a password."""
    authority: Pem | None = None
    """Certificates that vouch for the server; None: those of the system."""
    verify: bool = True
    tls_server_name: str = ""
    """The name that the server's certificate has, where it is not the host; "": the host."""
    proxy: str = field(default="", repr=False)
    """URL of an HTTP proxy."""
    certificate: Pem | None = None
    key: Pem | None = field(default=None, repr=False)
    token_file: Path | None = None
    """Read for every request: tokens of Pods are replaced about every hour."""
    token: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    plugin: ExecPlugin | None = field(default=None, repr=False)
    auth_provider: Mapping[str, Any] | None = field(default=None, repr=False)
    """Settings of a built-in provider (oidc), as kubeconfig has them."""
