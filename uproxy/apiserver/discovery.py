"""Where the access to a cluster is found: a kubeconfig, or the service account of this Pod."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from uproxy.apiserver.access import Access
from uproxy.apiserver.kubeconfig import read_kubeconfig
from uproxy.core.errors import SourceError
from uproxy.text.files import error_reason, read_small

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

    None: none of these exists. Raises SourceError where one exists that cannot be used.
    """
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
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        authority=authority,
        token_file=token,
    )
