"""The parts of kubernetes_asyncio that are used here, loaded without the rest of it.

Its packages import a class for every type of the Kubernetes API, which takes 1.6 s and 100 MiB of
memory. None of them is needed to authenticate and to send requests. So empty packages take the
place of the three that would load them, and single modules are imported (0.5 s, 30 MiB). If that
fails with a release of the library, it is imported in the ordinary way.

The library comes with the extra `cluster` only: it takes as much space as everything else that is
installed, and nothing but a cluster needs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

from uproxy.core.errors import SourceError

_ROOT = "kubernetes_asyncio"
_HOLLOW = (_ROOT, f"{_ROOT}.client", f"{_ROOT}.client.models")
"""Packages whose `__init__` is not run."""


class ElectionLibrary(NamedTuple):
    """Classes of kubernetes_asyncio for the election of a leader."""

    LeaderElection: Any
    Config: Any
    Record: Any
    ApiException: Any


class ClientLibrary(NamedTuple):
    """Classes of kubernetes_asyncio, which has no type annotations."""

    ApiClient: Any
    Configuration: Any
    KubeConfigLoader: Any
    errors: tuple[type[Exception], ...]
    """Exceptions of a request or of reading its response, when the server, the network or a
    certificate is at fault."""


class NotInstalled(SourceError):
    """The library is not there, so no cluster can be reached until it is installed."""


def require() -> None:
    """Raises NotInstalled where the library is missing. This imports nothing."""
    # A hollow package has no spec, for which `find_spec` raises an error.
    if sys.modules.get(_ROOT) is None and importlib.util.find_spec(_ROOT) is None:
        advice = "pip install 'uproxy[cluster]'"
        raise NotInstalled(f"reading a cluster needs {_ROOT}, which is not installed: {advice}")


def load(hollow: Sequence[str] = _HOLLOW) -> ClientLibrary:
    """Import what is needed, which takes a while the first time. `hollow` is for tests.

    Raises NotInstalled where the library is missing.
    """
    require()
    if _ROOT in sys.modules:
        return _classes()
    try:
        _hollow_out(hollow)
        return _classes()
    except (ImportError, AttributeError, KeyError):
        for name in [each for each in sys.modules if each.partition(".")[0] == _ROOT]:
            del sys.modules[name]
        return _classes()


def load_election() -> ElectionLibrary:
    """The same for the election of a leader. Its module with locks for Leases is left out, as it
    needs the classes of all types."""
    load()
    election = importlib.import_module(f"{_ROOT}.leaderelection.leaderelection")
    config = importlib.import_module(f"{_ROOT}.leaderelection.electionconfig")
    record = importlib.import_module(f"{_ROOT}.leaderelection.leaderelectionrecord")
    exceptions = importlib.import_module(f"{_ROOT}.client.exceptions")
    return ElectionLibrary(
        LeaderElection=election.LeaderElection,
        Config=config.Config,
        Record=record.LeaderElectionRecord,
        ApiException=exceptions.ApiException,
    )


def _hollow_out(names: Sequence[str]) -> None:
    spec = importlib.util.find_spec(_ROOT)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"no package {_ROOT}", name=_ROOT)
    place = next(iter(spec.submodule_search_locations))
    for name in names:
        package = ModuleType(name)
        package.__path__ = [place + name.removeprefix(_ROOT).replace(".", "/")]
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)
    client = sys.modules[f"{_ROOT}.client"]
    # The library's own modules import these two from the package, whose `__init__` was not run.
    for name, module in (("Configuration", "configuration"), ("ApiClient", "api_client")):
        found = importlib.import_module(f"{_ROOT}.client.{module}")
        setattr(client, name, getattr(found, name))


def _classes() -> ClientLibrary:
    api_client = importlib.import_module(f"{_ROOT}.client.api_client")
    configuration = importlib.import_module(f"{_ROOT}.client.configuration")
    rest = importlib.import_module(f"{_ROOT}.client.rest")
    kube_config = importlib.import_module(f"{_ROOT}.config.kube_config")
    client_error = rest.aiohttp.ClientError
    return ClientLibrary(
        ApiClient=api_client.ApiClient,
        Configuration=configuration.Configuration,
        KubeConfigLoader=kube_config.KubeConfigLoader,
        errors=(client_error, OSError, TimeoutError, EOFError),
    )
