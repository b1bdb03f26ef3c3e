"""Facts about this machine that decide what uproxy can do here. Finding them changes nothing."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import os
import platform
import resource
import select
import shutil
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from uproxy.cli.doctor import attempts
from uproxy.cli.doctor.io_uring_facts import DISABLED, GROUP, IoUring, examine_io_uring
from uproxy.core.report.status_format import StatusView
from uproxy.host.bridge_rules import bridge_rules_error
from uproxy.host.other_proxies import find_other_proxies

SYSCTLS: Final = (
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "fs.pipe-user-pages-soft",
    DISABLED,
    GROUP,
    "net.bridge.bridge-nf-call-iptables",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_migrate_req",
    "net.ipv4.tcp_tw_reuse",
)

CAPABILITIES: Final = {"NET_BIND_SERVICE": 10, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_RESOURCE": 24}
"""Bits as in linux/capability.h."""

_NET: Final = Path("/sys/class/net")
_MOST: Final = 1 << 26
"""Bytes of an answer. The status of 10,000 Services has 20 MB."""

HEALTHZ_PORT: Final = 10256
METRICS_PORT: Final = 10249


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All facts. They are the only input of the checks, so tests can make up any machine."""

    system: str
    """"Linux 6.8.0"."""
    python: tuple[int, ...]
    uvloop: str
    """Version; "" if it is not installed."""
    kubernetes_asyncio: str
    """The same."""
    cpus: int
    """CPUs that this process may use."""
    capabilities: frozenset[str]
    """The effective ones among CAPABILITIES."""
    sysctls: Mapping[str, str]
    """Values of those SYSCTLS that exist, with single spaces between words."""
    strict_interfaces: tuple[str, ...]
    """Interfaces whose rp_filter is 1: they accept a packet only if its answer would leave through
    the same interface."""
    descriptors: int
    """Hard limit of open files per process; uproxy raises the soft one to it."""
    epoll: bool
    splice: str
    """Why splice(2) does not work; "" if it does. The next three fields are alike."""
    reuse_port: str
    ipv6: str
    transparent: str
    """IP_TRANSPARENT, for sockets that have addresses of other machines."""
    io_uring: IoUring
    nft: bool
    has_pods: bool
    """Whether pods run on this machine, or may."""
    bridges: tuple[str, ...]
    """Linux bridges, by name."""
    bridge_rules: str
    """Why replies between pods of one bridge cannot be brought up; "" if they can."""
    masqueraded: Mapping[str, int]
    """Why a running uproxy shows pods this node's address although Services ask for the client's,
    with the number of their ports."""
    proxies: Sequence[str]
    """Other service proxies, by what they have left in the kernel."""
    own_ports: tuple[int, int]
    """The ports of metrics and health that uproxy uses here, or would use."""
    taken_ports: Mapping[int, str]
    """Those of `own_ports` that are taken, with what /proxyMode says there, or ""."""
    service_proxy_name: str
    """--service-proxy-name where it is set for a Pod: another proxy serves all other Services."""

    def number(self, sysctl: str, otherwise: int = 0) -> int:
        """The value of a sysctl, or `otherwise` if it is not known."""
        text = self.sysctls.get(sysctl, "")
        return int(text) if text.isdecimal() else otherwise


def examine() -> Machine:
    """Find all facts. This takes a second at most, if the program on a port does not answer."""
    sysctls = {name: value for name in SYSCTLS if (value := _sysctl(name))}
    status = _read("/proc/self/status")
    ports = own_ports(os.environ)
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        python=tuple(sys.version_info[:3]),
        uvloop=_version("uvloop"),
        kubernetes_asyncio=_version("kubernetes_asyncio"),
        cpus=len(os.sched_getaffinity(0)),
        capabilities=capabilities(status),
        sysctls=sysctls,
        strict_interfaces=tuple(strict_interfaces(Path("/proc/sys/net/ipv4/conf"))),
        descriptors=_descriptors(),
        epoll=hasattr(select, "epoll"),
        splice=attempts.failure(attempts.try_splice),
        io_uring=examine_io_uring(sysctls, status),
        reuse_port=attempts.failure(attempts.try_reuse_port),
        ipv6=attempts.failure(attempts.try_ipv6),
        transparent=attempts.failure(attempts.try_transparent),
        nft=shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None,
        has_pods=has_pods(os.environ),
        bridges=tuple(sorted(each.parent.name for each in _NET.glob("*/bridge"))),
        bridge_rules=bridge_rules_error(),
        masqueraded=masqueraded(ports[0]),
        proxies=find_other_proxies(),
        own_ports=ports,
        taken_ports={port: proxy_mode(port) for port in sorted(ports) if attempts.is_taken(port)},
        service_proxy_name=os.environ.get("UPROXY_SERVICE_PROXY_NAME", ""),
    )


def own_ports(environ: Mapping[str, str]) -> tuple[int, int]:
    """The ports of metrics and health, which variables change in a Pod beside kube-proxy."""
    addresses = (
        (environ.get("UPROXY_METRICS_BIND_ADDRESS", ""), METRICS_PORT),
        (environ.get("UPROXY_HEALTHZ_BIND_ADDRESS", ""), HEALTHZ_PORT),
    )
    metrics, health = (
        int(port) if (port := text.rpartition(":")[2]).isdecimal() else default
        for text, default in addresses
    )
    return metrics, health


def running_status(port: int) -> StatusView | None:
    """The status of the uproxy whose metrics are on a port; None if there is none."""
    try:
        return msgspec.json.decode(_get(port, "/api/v1/routes"), type=StatusView)
    except (OSError, ValueError, http.client.HTTPException):
        return None


def masqueraded(port: int) -> Mapping[str, int]:
    """What the uproxy whose metrics are on a port says about the addresses that pods see."""
    status = running_status(port)
    if status is None:
        return {}
    found = {
        (each.service, each.service_port, each.protocol): each.client_address_reason
        for each in status.frontends
        if each.client_address_reason
    }
    return Counter(found.values())


def has_pods(environ: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Whether this is a Pod, or a machine with a kubelet or a network plugin."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return True
    try:
        plugins = any((root / "etc/cni/net.d").glob("*.conf*"))
        return plugins or (root / "var/lib/kubelet").is_dir()
    except PermissionError:
        # Only machines that run pods have such directories, many of which only root may read.
        return True


def capabilities(status: str) -> frozenset[str]:
    """Effective capabilities, from the text of /proc/PID/status."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return frozenset(name for name, bit in CAPABILITIES.items() if bits >> bit & 1)
    return frozenset()


def strict_interfaces(directory: Path) -> Iterator[str]:
    """Names of interfaces with a strict filter, from a directory like /proc/sys/net/ipv4/conf.

    The higher value of "all" and the interface is used (kernel: ip-sysctl.rst, rp_filter).
    """
    values = {each.parent.name: _read(str(each)).strip() for each in directory.glob("*/rp_filter")}
    everywhere = values.pop("all", "0")
    for name, value in sorted(values.items()):
        if name not in ("default", "lo") and max(everywhere, value) == "1":
            yield name


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _sysctl(name: str) -> str:
    # The dots of a name are the slashes of its path; none of SYSCTLS has a dot in a component.
    return " ".join(_read(f"/proc/sys/{name.replace('.', '/')}").split())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _descriptors() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def proxy_mode(port: int) -> str:
    """What /proxyMode says on a port: uproxy and kube-proxy have it at their metrics address."""
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        text = _get(port, "/proxyMode", at_most=40).decode("ascii")
        return text if text.isalpha() else ""
    return ""


def _get(port: int, path: str, at_most: int = _MOST) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=0.5) as answer:
        found: bytes = answer.read(at_most)
        return found
