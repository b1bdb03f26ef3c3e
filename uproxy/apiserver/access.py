"""How a cluster is reached, and as which user: what a kubeconfig or a service account says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Pem = Path | bytes
"""Certificates or a key: the path of a file, which may be replaced at any time, or the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecPlugin:
    """A program that issues credentials (client.authentication.k8s.io)."""

    api_version: str
    command: str
    """An absolute path, or a name that is searched for in PATH."""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    install_hint: str = ""
    cluster: Mapping[str, Any] | None = None
    """What it is told about the cluster, if its kubeconfig says `provideClusterInfo`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One cluster and one user."""

    origin: str
    """Where this was found, for messages."""
    in_cluster: bool = False
    """Whether this is the service account of a Pod."""
    server: str
    """http(s)://HOST:PORT, without user, password or final slash."""
    authority: Pem | None = None
    """The certificates of the authorities that sign the server's; None: those of the system."""
    verify: bool = True
    tls_server_name: str = ""
    """The name in the server's certificate, where it differs from the host; "": the host."""
    proxy: str = field(default="", repr=False)
    """URL of an HTTP proxy."""
    certificate: Pem | None = None
    key: Pem | None = field(default=None, repr=False)
    token_file: Path | None = None
    """Read for every request, because the kubelet replaces the token of a Pod about every hour."""
    token: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    plugin: ExecPlugin | None = field(default=None, repr=False)
    auth_provider: Mapping[str, Any] | None = field(default=None, repr=False)
    """Settings of a built-in provider (oidc), as in the kubeconfig."""
