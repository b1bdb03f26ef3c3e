"""Other programs that serve Services on this node, found by what they leave in the kernel.

Their rules take packets before sockets get them. What they leave behind when they stop counts as
well, since it goes on taking packets.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uproxy.host.commands import NOTHING, is_installed, run_command

_IPVS: Final = "kube-ipvs0"
"""The interface on which kube-proxy in mode ipvs puts the addresses of all Services."""
_CILIUM: Final = "cilium_host"
_NFT_TABLE: Final = "kube-proxy"
_CHAIN: Final = "KUBE-SERVICES"
_LEGACY: Final = (("iptables-legacy", "ip_tables_names"), ("ip6tables-legacy", "ip6_tables_names"))
"""Each command, and the file that has the names of the tables that are in use."""


@dataclass(frozen=True, kw_only=True)
class ProxyCalls:
    """What is asked of this machine, so that tests can put a model in its place."""

    has_interface: Callable[[str], bool]
    nft: Callable[..., str]
    """Lists something: `run_command` of nft, which raises OSError."""
    legacy_chains: Callable[[], str]
    """The nat tables of iptables as it was before nftables, as text. Raises OSError."""


def find_other_proxies(calls: ProxyCalls | None = None) -> Sequence[str]:
    """What serves Services on this node besides uproxy, each with how it was found.

    What cannot be read, for lack of a privilege or of a command, is taken to be absent. This runs
    commands, so it belongs in a thread. It never raises.
    """
    calls = _LINUX if calls is None else calls
    found = list(_by_interfaces(calls))
    for look in (_by_nftables, _by_legacy_iptables):
        with contextlib.suppress(OSError):
            found += look(calls)
    return tuple(dict.fromkeys(found))


def _by_interfaces(calls: ProxyCalls) -> Iterator[str]:
    if calls.has_interface(_IPVS):
        yield f"kube-proxy in mode ipvs (interface {_IPVS})"
    if calls.has_interface(_CILIUM):
        yield f"Cilium (interface {_CILIUM})"


def _by_nftables(calls: ProxyCalls) -> Iterator[str]:
    """Names of tables and chains are asked for, and no rules: there may be 100,000."""
    tables = {tuple(line.split()) for line in calls.nft("list", "tables").splitlines()}
    for family in ("ip", "ip6"):
        if ("table", family, _NFT_TABLE) in tables:
            yield f"kube-proxy in mode nftables (table {_NFT_TABLE})"
        # iptables is nearly everywhere a front end of nftables, which has its tables.
        if ("table", family, "nat") in tables:
            chains = calls.nft("list", "chains", family).split()
            if _CHAIN in chains:
                yield f"kube-proxy in mode iptables (chain {_CHAIN})"


def _by_legacy_iptables(calls: ProxyCalls) -> Iterator[str]:
    if any(line.split()[:1] == [f":{_CHAIN}"] for line in calls.legacy_chains().splitlines()):
        yield f"kube-proxy in mode iptables (chain {_CHAIN})"


def _has_interface(name: str) -> bool:
    try:
        return bool(socket.if_nametoindex(name))
    except OSError:
        return False


def _nft(*words: str) -> str:
    if not is_installed("nft"):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return run_command("nft", *words)


def _legacy_chains() -> str:
    found = []
    for command, names in _LEGACY:
        # The command would load the kernel module, where the table is not in use.
        with contextlib.suppress(OSError):
            used = Path("/proc/net", names).read_text().split()
            if "nat" in used and is_installed(f"{command}-save"):
                found.append(run_command(f"{command}-save", "-t", "nat", fine=("not exist",)))
    return "\n".join(each for each in found if each != NOTHING)


_LINUX: Final = ProxyCalls(has_interface=_has_interface, nft=_nft, legacy_chains=_legacy_chains)
