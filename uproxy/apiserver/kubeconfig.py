"""kubeconfig files, merged as kubectl merges them.

The first file that has a current-context, or an entry of a name, wins; entries of the same name are
not combined. Relative paths are relative to the file that contains them, so a user and a cluster of
one context may have different directories.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from uproxy.apiserver.access import Access, ExecPlugin, Pem
from uproxy.apiserver.kubeconfig_fields import (
    Cluster,
    Context,
    Exec,
    Kubeconfig,
    NamedCluster,
    NamedContext,
    NamedUser,
    User,
)
from uproxy.core.brief import brief, brief_name
from uproxy.core.cluster.decode import explain
from uproxy.core.errors import SourceError
from uproxy.text.advice import advise
from uproxy.text.document import Document, Malformed, decode_text, join_parts
from uproxy.text.files import error_reason, printable_name, read_any, read_small
from uproxy.text.yaml_text import yaml_documents

_PUBLIC = frozenset(("contexts", "clusters"))
"""Parts of a kubeconfig whose values an error message may quote."""
_FOUND = re.compile(r", found [^;]*")
_QUOTED = re.compile(r"(the (?:alias|tag)) \S+")
"""YAML takes a value that begins with "*" or "!" for an alias or a tag, and the reason quotes it.
It may be a password, so it is cut out."""
_AUTH_API = "client.authentication.k8s.io/"


class _File(NamedTuple):
    path: Path
    content: Kubeconfig


_Named = TypeVar("_Named", NamedCluster, NamedUser, NamedContext)


def read_server(path: Path) -> str:
    """The URL of the server in the current context of a kubeconfig, and nothing else of it: the
    credentials in it, and the files that it names, are of no concern.

    Raises FileNotFoundError where there is no such file, SourceError where it cannot be used.
    """
    if not _exists(path):
        raise FileNotFoundError(str(path))
    file = _read(path)
    where = f"kubeconfig {printable_name(str(path))}"
    wanted = file.content.current_context or ""
    contexts = ((file, each) for each in file.content.contexts or ())
    _, chosen = _find(contexts, wanted, where, "context")
    context = chosen.context or Context()
    clusters = ((file, each) for each in file.content.clusters or ())
    _, cluster = _find(clusters, context.cluster, where, "cluster")
    return _Reader(where, path, path).server((cluster.cluster or Cluster()).server).url


def read_kubeconfig(paths: Sequence[Path], context: str = "") -> Access:
    """The access of a context, by default of the current one.

    Files that do not exist are skipped if at least one does. Raises SourceError, which says what to
    correct, if none exists or if they cannot be used.
    """
    names = ":".join(printable_name(str(path)) for path in paths)
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
    context_fields = chosen.context or Context()
    where = f'kubeconfig {names}: context "{printable_name(brief_name(wanted))}"'
    cluster_file, cluster = _find(
        ((file, each) for file in found for each in file.content.clusters or ()),
        context_fields.cluster,
        where,
        "cluster",
    )
    if not context_fields.user:
        return _Reader(where, cluster_file.path, cluster_file.path).access(
            cluster.cluster or Cluster(), User()
        )
    user_file, user = _find(
        ((file, each) for file in found for each in file.content.users or ()),
        context_fields.user,
        where,
        "user",
    )
    return _Reader(where, cluster_file.path, user_file.path).access(
        cluster.cluster or Cluster(), user.user or User()
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # The directory may not be searched: `_read` reports that.
        return True


def _read(path: Path) -> _File:
    name = printable_name(str(path))
    try:
        text = decode_text(read_any(path))
        document = next(iter(yaml_documents(text)), None)
        if isinstance(document, Malformed):
            raise document
    except OSError as error:
        raise SourceError(f"kubeconfig {name}: cannot be read: {error_reason(error)}") from None
    except Malformed as error:
        reason = brief(_QUOTED.sub(r"\1", error.reason))
        raise SourceError(f"kubeconfig {name}:{error.line}: {reason}") from None
    if document is None or document.data is None:
        return _File(path, Kubeconfig())
    return _File(path, _decode(name, document))


def _decode(name: str, document: Document) -> Kubeconfig:
    try:
        return msgspec.convert(_without_nulls(document.data), Kubeconfig)
    except msgspec.ValidationError as error:
        parts, reason = advise(explain(error), document.data, Kubeconfig)
        if _PUBLIC.isdisjoint(parts):
            # The value may be a token or a password, such as a number without quotes.
            reason = _FOUND.sub("", reason)
        field = f"{brief_name(join_parts(parts))}: " if parts else ""
        line = document.locate(parts)
        raise SourceError(f"kubeconfig {name}:{line}: {field}{brief(reason)}") from None


def _without_nulls(data: Any) -> Any:
    """A key without a value is the same as no key, and common in kubeconfigs."""
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
    names = brief(", ".join(printable_name(brief_name(entry.name)) for _, entry in found)) or "none"
    raise SourceError(
        f'{where}: no {what} "{printable_name(brief_name(name))}"; there are: {names}'
    )


class _Server(NamedTuple):
    """The URL of an API server, and the user and password that were in it."""

    url: str
    username: str
    password: str


class _Reader:
    """Turns the fields of a cluster and a user into an Access."""

    def __init__(self, where: str, cluster_file: Path, user_file: Path) -> None:
        self._where = where
        self._cluster_file = cluster_file
        self._user_file = user_file

    def access(self, cluster: Cluster, user: User) -> Access:
        if user.impersonate:
            self._fail(
                "as", "impersonation is not supported; give a user that has the permissions itself"
            )
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
        server = self.server(cluster.server)
        username, password = user.username, user.password
        # As in Go's HTTP client, credentials in the URL are used only if there are no others.
        if not (username or user.token or user.token_file or user.exec or user.auth_provider):
            username, password = server.username, server.password
        return Access(
            origin=self._where,
            server=server.url,
            authority=authority,
            verify=not cluster.insecure_skip_tls_verify,
            tls_server_name=cluster.tls_server_name,
            proxy=cluster.proxy_url,
            certificate=certificate,
            key=key,
            token_file=self._path("tokenFile", user.token_file, self._user_file),
            token=user.token,
            username=username,
            password=password,
            plugin=self._plugin(user.exec, server.url, cluster, authority),
            auth_provider=user.auth_provider,
        )

    def _fail(self, field: str, reason: str) -> None:
        raise SourceError(f"{self._where}: {field}: {reason}")

    def server(self, server: str) -> _Server:
        """Take a URL apart. A password in it is never shown."""
        try:
            url = urlsplit(server)
            usable = url.scheme in ("http", "https") and bool(url.hostname)
            usable = usable and server.isprintable() and not (url.query or url.fragment)
            usable = usable and "@" not in url.path
            _ = url.port
        except ValueError:
            usable = False
        if not usable:
            # Where a password ends in a malformed URL is not known, but it is before the last "@".
            text = printable_name(brief(server.rpartition("@")[2]))
            self._fail("server", f'"{text}" is not a URL such as https://192.0.2.1:6443')
        clean = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl().rstrip("/")
        return _Server(clean, unquote(url.username or ""), unquote(url.password or ""))

    def _path(self, field: str, name: str, file: Path) -> Path | None:
        if not name:
            return None
        path = file.parent.absolute() / name
        try:
            read_small(path)
        except OSError as error:
            self._fail(field, f"{printable_name(str(path))}: {error_reason(error)}")
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
        self, fields: Exec | None, server: str, cluster: Cluster, authority: Pem | None
    ) -> ExecPlugin | None:
        if fields is None:
            return None
        if not fields.api_version.startswith(_AUTH_API):
            version = printable_name(brief_name(fields.api_version))
            self._fail("exec.apiVersion", f'is "{version}"; give {_AUTH_API}v1')
        if fields.interactive_mode == "Always":
            self._fail("exec.interactiveMode", "is Always, but there is no terminal to prompt on")
        info = None
        if fields.provide_cluster_info:
            info = _cluster_info(server, cluster, authority)
        command = fields.command
        if "/" in command:  # Without a slash it is searched for in PATH.
            command = str(self._user_file.parent.absolute() / command)
        return ExecPlugin(
            api_version=fields.api_version,
            command=command,
            args=tuple(fields.args or ()),
            env={each.name: each.value for each in fields.env or ()},
            install_hint=fields.install_hint,
            cluster=info,
        )


def _cluster_info(server: str, cluster: Cluster, authority: Pem | None) -> dict[str, Any]:
    """The cluster as an ExecCredential describes it (client.authentication.k8s.io/v1)."""
    pem = read_small(authority) if isinstance(authority, Path) else authority or b""
    config = next(
        (
            each.get("extension")
            for each in cluster.extensions or ()
            if isinstance(each, dict) and each.get("name") == "client.authentication.k8s.io/exec"
        ),
        None,
    )
    told = {
        "server": server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": base64.b64encode(pem).decode(),
        "proxy-url": cluster.proxy_url,
        "config": config,
    }
    return {name: value for name, value in told.items() if value}
