"""kubeconfig files, merged as kubectl merges them: whoever says something first is right.

Relative paths in a file start from its directory.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from uproxy.core.decode import explain
from uproxy.sources.access import Access, ExecPlugin, Pem
from uproxy.sources.advice import advise
from uproxy.sources.brevity import brief, brief_name
from uproxy.sources.document import Document, Malformed, decode_text, join_parts
from uproxy.sources.errors import SourceError
from uproxy.sources.reading import shown
from uproxy.sources.tree import reason_of
from uproxy.sources.yaml_text import yaml_documents

_AUTH_API = "client.authentication.k8s.io/"


class _Fields(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Options shared by all parts; unknown fields are somebody else's."""


class _Cluster(_Fields, frozen=True):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    extensions: list[Any] | None = None


class _Variable(_Fields, frozen=True):
    name: str
    value: str = ""


class _Exec(_Fields, frozen=True, rename="camel"):
    api_version: str
    command: str
    args: list[str] | None = None
    env: list[_Variable] | None = None
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class _User(_Fields, frozen=True):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(default="", name="tokenFile")
    username: str = ""
    password: str = ""
    exec: _Exec | None = None
    auth_provider: dict[str, Any] | None = None
    impersonate: str = msgspec.field(default="", name="as")


class _Context(_Fields, frozen=True):
    cluster: str = ""
    user: str = ""


class _NamedCluster(_Fields, frozen=True):
    name: str
    cluster: _Cluster | None = None


class _NamedUser(_Fields, frozen=True):
    name: str
    user: _User | None = None


class _NamedContext(_Fields, frozen=True):
    name: str
    context: _Context | None = None


class _Kubeconfig(_Fields, frozen=True):
    current_context: str | None = None
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


class _File(NamedTuple):
    path: Path
    content: _Kubeconfig


_Named = TypeVar("_Named", _NamedCluster, _NamedUser, _NamedContext)


def read_kubeconfig(paths: Sequence[Path], context: str = "") -> Access:
    """The access that a context gives, by default the current one.

    Files that do not exist are passed over as long as there is one. Raises SourceError, with what
    to put right, where there is none, or where a file does not fit together.
    """
    names = ":".join(shown(str(path)) for path in paths)
    found = [_read(path) for path in paths if _exists(path)]
    if not found:
        raise SourceError(f"kubeconfig {names}: no such file; give one with --kubeconfig FILE")
    wanted = context or next(filter(None, (each.content.current_context for each in found)), "")
    if not wanted:
        raise SourceError(f"kubeconfig {names}: no current-context; choose one with --context NAME")
    _, chosen = _find(
        ((file, each) for file in found for each in file.content.contexts or ()),
        wanted,
        f"kubeconfig {names}",
        "context",
    )
    context_fields = chosen.context or _Context()
    where = f'kubeconfig {names}: context "{shown(brief_name(wanted))}"'
    cluster_file, cluster = _find(
        ((file, each) for file in found for each in file.content.clusters or ()),
        context_fields.cluster,
        where,
        "cluster",
    )
    if not context_fields.user:
        return _Reader(where, cluster_file.path, cluster_file.path).access(
            cluster.cluster or _Cluster(), _User()
        )
    user_file, user = _find(
        ((file, each) for file in found for each in file.content.users or ()),
        context_fields.user,
        where,
        "user",
    )
    return _Reader(where, cluster_file.path, user_file.path).access(
        cluster.cluster or _Cluster(), user.user or _User()
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # Not even its directory may be looked into: `_read` says so.
        return True


def _read(path: Path) -> _File:
    name = shown(str(path))
    try:
        text = decode_text(path.read_bytes())
        document = next(iter(yaml_documents(text)), None)
        if isinstance(document, Malformed):
            raise document
    except OSError as error:
        raise SourceError(f"kubeconfig {name}: cannot be read: {reason_of(error)}") from None
    except Malformed as error:
        raise SourceError(f"kubeconfig {name}:{error.line}: {brief(error.reason)}") from None
    if document is None or document.data is None:
        return _File(path, _Kubeconfig())
    return _File(path, _decode(name, document))


def _decode(name: str, document: Document) -> _Kubeconfig:
    try:
        return msgspec.convert(_without_nulls(document.data), _Kubeconfig)
    except msgspec.ValidationError as error:
        parts, reason = advise(explain(error), document.data, _Kubeconfig)
        field = f"{brief_name(join_parts(parts))}: " if parts else ""
        line = document.locate(parts)
        raise SourceError(f"kubeconfig {name}:{line}: {field}{brief(reason)}") from None


def _without_nulls(data: Any) -> Any:
    """A key with nothing behind it is the same as no key, and common in kubeconfigs."""
    if isinstance(data, dict):
        return {key: _without_nulls(each) for key, each in data.items() if each is not None}
    return [_without_nulls(each) for each in data] if isinstance(data, list) else data


def _find(
    entries: Iterable[tuple[_File, _Named]], name: str, where: str, what: str
) -> tuple[_File, _Named]:
    found = list(entries)
    for file, entry in found:
        if entry.name == name:
            return file, entry
    names = brief(", ".join(shown(brief_name(entry.name)) for _, entry in found)) or "none"
    raise SourceError(f'{where}: no {what} "{shown(brief_name(name))}"; there are: {names}')


class _Reader:
    """Turns the fields of a cluster and a user into an Access."""

    def __init__(self, where: str, cluster_file: Path, user_file: Path) -> None:
        self._where = where
        self._cluster_file = cluster_file
        self._user_file = user_file

    def access(self, cluster: _Cluster, user: _User) -> Access:
        if user.impersonate:
            self._fail("as", "impersonation is not supported; name a user who may do it himself")
        certificate = self._pem(
            "client-certificate",
            user.client_certificate,
            user.client_certificate_data,
            self._user_file,
        )
        key = self._pem("client-key", user.client_key, user.client_key_data, self._user_file)
        if (certificate is None) != (key is None):
            self._fail("client-key", "a client certificate and its key are needed together")
        authority = self._pem(
            "certificate-authority",
            cluster.certificate_authority,
            cluster.certificate_authority_data,
            self._cluster_file,
        )
        return Access(
            origin=self._where,
            server=self._server(cluster.server),
            authority=authority,
            verify=not cluster.insecure_skip_tls_verify,
            tls_server_name=cluster.tls_server_name,
            proxy=cluster.proxy_url,
            certificate=certificate,
            key=key,
            token_file=self._path("tokenFile", user.token_file, self._user_file),
            token=user.token,
            username=user.username,
            password=user.password,
            plugin=self._plugin(user.exec, cluster, authority),
            auth_provider=user.auth_provider,
        )

    def _fail(self, field: str, reason: str) -> None:
        raise SourceError(f"{self._where}: {field}: {reason}")

    def _server(self, server: str) -> str:
        try:
            url = urlsplit(server)
            usable = url.scheme in ("http", "https") and bool(url.hostname)
            _ = url.port
        except ValueError:
            usable = False
        if not usable:
            self._fail(
                "server", f'"{shown(brief(server))}" is not a URL such as https://192.0.2.1:6443'
            )
        return server.rstrip("/")

    def _path(self, field: str, name: str, file: Path) -> Path | None:
        if not name:
            return None
        path = file.parent.absolute() / name
        try:
            path.open("rb").close()
        except OSError as error:
            self._fail(field, f"{shown(str(path))}: {reason_of(error)}")
        return path

    def _pem(self, field: str, name: str, data: str, file: Path) -> Pem | None:
        if not data:
            return self._path(field, name, file)
        try:
            return base64.b64decode(data)
        except (binascii.Error, ValueError):
            self._fail(f"{field}-data", "not base64")
        return None

    def _plugin(
        self, fields: _Exec | None, cluster: _Cluster, authority: Pem | None
    ) -> ExecPlugin | None:
        if fields is None:
            return None
        if not fields.api_version.startswith(_AUTH_API):
            version = shown(brief_name(fields.api_version))
            self._fail("exec.apiVersion", f'is "{version}"; give {_AUTH_API}v1')
        if fields.interactive_mode == "Always":
            self._fail("exec.interactiveMode", "is Always, but nobody could answer questions here")
        command = fields.command
        if "/" in command:
            command = str(self._user_file.parent.absolute() / command)
        return ExecPlugin(
            api_version=fields.api_version,
            command=command,
            args=tuple(fields.args or ()),
            env={each.name: each.value for each in fields.env or ()},
            install_hint=fields.install_hint,
            cluster=_told(cluster, authority) if fields.provide_cluster_info else None,
        )


def _told(cluster: _Cluster, authority: Pem | None) -> dict[str, Any]:
    """The cluster as an ExecCredential describes it (client.authentication.k8s.io/v1)."""
    pem = authority.read_bytes() if isinstance(authority, Path) else authority or b""
    config = next(
        (
            each.get("extension")
            for each in cluster.extensions or ()
            if isinstance(each, dict) and each.get("name") == "client.authentication.k8s.io/exec"
        ),
        None,
    )
    told = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": base64.b64encode(pem).decode(),
        "proxy-url": cluster.proxy_url,
        "config": config,
    }
    return {name: value for name, value in told.items() if value}
