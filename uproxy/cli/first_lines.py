"""The first lines of `uproxy run`: what is served from where, and where the page is."""

from __future__ import annotations

from collections.abc import Iterator

import uproxy
from uproxy.apiserver.access import Access
from uproxy.config.settings import Address, Config

_NAMED = 3
"""So many paths are named, and more are counted."""
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a wildcard address can be reached from this machine."""


def first_lines(config: Config, access: Access | None, *, listening: bool) -> Iterator[str]:
    """`access`: how the cluster is reached; None: objects come from manifests. `listening`: whether
    the page can be opened already."""
    source = _cluster(access) if access is not None else _manifests(config)
    labelled = f" for {config.service_proxy_name}" if config.service_proxy_name else ""
    yield (
        f"uproxy {uproxy.__version__} serves the Services{labelled} of {source} on node "
        f"{config.node_name}"
    )
    address = config.metrics_address
    if address is None:
        yield "the status page, the API and the metrics are switched off"
    elif listening:
        yield f"the status page is at {page_url(address)}"
    else:
        yield f"the status page will be at {page_url(address)} when its port is free"


def page_url(address: Address) -> str:
    """The URL of the page, for a browser on this machine."""
    host = _ANY.get(address.host, address.host)
    return f"http://[{host}]:{address.port}/" if ":" in host else f"http://{host}:{address.port}/"


def _manifests(config: Config) -> str:
    names = list(map(str, config.manifests))
    if len(names) > _NAMED:
        return f"{len(names)} paths with manifests"
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"the manifests in {listed}"


def _cluster(access: Access) -> str:
    if access.in_cluster:
        return f"the cluster that this Pod runs in ({access.server})"
    return f"the cluster at {access.server} ({access.origin})"
