"""Where the access to a cluster is found: a kubeconfig, or the service account of this Pod; and at
which addresses its API server may answer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from uproxy.apiserver import client_library
from uproxy.apiserver.access import Access
from uproxy.apiserver.candidates import Candidate, Candidates, candidate_at
from uproxy.apiserver.kubeconfig import read_kubeconfig, read_server
from uproxy.core.errors import SourceError
from uproxy.text.files import error_reason, read_small

log = logging.getLogger(__name__)

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a Pod finds its token and the cluster's certificates."""


def find_access(
    kubeconfig: Path | None = None,
    context: str = "",
    *,
    environ: Mapping[str, str] = os.environ,
    service_account: Path = SERVICE_ACCOUNT,
) -> Access | None:
    """The access by the kubeconfig or context that is given; else by this Pod's service account;
    else by $KUBECONFIG or ~/.kube/config.

    None: none of these exists. Raises SourceError where one exists that cannot be used, or
    where the library that reaches clusters is not installed.
    """
    access = _first_access(kubeconfig, context, environ, service_account)
    if access is not None:
        client_library.require()
    return access


def _first_access(
    kubeconfig: Path | None, context: str, environ: Mapping[str, str], service_account: Path
) -> Access | None:
    if kubeconfig is not None:
        return read_kubeconfig([kubeconfig], context)
    inside = None if context else _in_cluster(environ, service_account)
    if inside is not None:
        return inside
    if environ.get("KUBECONFIG"):
        names = [each for each in environ["KUBECONFIG"].split(os.pathsep) if each]
        return read_kubeconfig([Path(each).expanduser() for each in names], context)
    home = environ.get("HOME")
    default = Path(home, ".kube", "config") if home else None
    if default is not None and (context or default.exists()):
        return read_kubeconfig([default], context)
    return None


class KnownAddresses(NamedTuple):
    """What is known about the addresses of an API server before it is asked. All are
    "HOST:PORT"."""

    given: Sequence[str] = ()
    """By --apiserver-address."""
    kubelet_kubeconfig: Path | None = None
    """A kubeconfig of this node's kubelet, of which only the server is used."""
    remembered: Callable[[], Sequence[str]] = tuple
    """Returns those in the last-known state. It is called only if the others name none: reading a
    large state takes a while, and it is served anyway if no address answers."""


def find_addresses(access: Access, known: KnownAddresses, *, spread: str = "") -> Candidates | None:
    """The addresses to try for an access. None: only that of the access, because it is that of a
    kubeconfig and no address is given. `spread`: see Candidates."""
    given = [candidate_at(access, each, "--apiserver-address") for each in known.given]
    if not access.in_cluster:
        return Candidates(access, given, spread=spread) if given else None
    first = (*given, *_of_kubelet(access, known))
    found = Candidates(access, first, spread=spread)
    if not first:
        found.learn(known.remembered())
    return found


def _of_kubelet(access: Access, known: KnownAddresses) -> Iterator[Candidate]:
    """The server of kubelet's kubeconfig. Without such a file there is none; a file that cannot be
    used is worth a warning, but other addresses may work."""
    path = known.kubelet_kubeconfig
    if path is None:
        return
    try:
        server = urlsplit(read_server(path))
        if server.scheme != "https":
            raise SourceError(f"kubeconfig {path}: its server has no TLS")
    except FileNotFoundError:
        return
    except SourceError as error:
        log.warning("kubelet's address of the API server is not used: %s", error)
        return
    host = f"[{server.hostname}]" if ":" in (server.hostname or "") else server.hostname
    yield candidate_at(access, f"{host}:{server.port or 443}", f"kubelet's kubeconfig {path}")


def _in_cluster(environ: Mapping[str, str], directory: Path) -> Access | None:
    host, port = (environ.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    token, authority = directory / "token", directory / "ca.crt"
    if not (host and port and token.exists()):
        return None
    for path in (token, authority):
        try:
            read_small(path)
        except OSError as error:
            raise SourceError(f"service account: {path}: {error_reason(error)}") from None
    return Access(
        origin="service account",
        in_cluster=True,
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        authority=authority,
        token_file=token,
    )
