"""The fields of a kubeconfig that are used here."""

from __future__ import annotations

from typing import Any

import msgspec


class _Fields(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Options of all parts. Fields that are not listed are for other programs, and ignored."""


class Cluster(_Fields, frozen=True):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    extensions: list[Any] | None = None


class Variable(_Fields, frozen=True):
    name: str
    value: str = ""


class Exec(_Fields, frozen=True, rename="camel"):
    api_version: str
    command: str
    args: list[str] | None = None
    env: list[Variable] | None = None
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class User(_Fields, frozen=True):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    username: str = ""
    password: str = ""
    exec: Exec | None = None
    auth_provider: dict[str, Any] | None = None
    impersonate: str = msgspec.field(default="", name="as")


class Context(_Fields, frozen=True):
    cluster: str = ""
    user: str = ""


class NamedCluster(_Fields, frozen=True):
    name: str
    cluster: Cluster | None = None


class NamedUser(_Fields, frozen=True):
    name: str
    user: User | None = None


class NamedContext(_Fields, frozen=True):
    name: str
    context: Context | None = None


class Kubeconfig(_Fields, frozen=True):
    current_context: str | None = None
    clusters: list[NamedCluster] | None = None
    users: list[NamedUser] | None = None
    contexts: list[NamedContext] | None = None
