"""What is written is what is read."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest

from uproxy.config.as_file import as_file, origins
from uproxy.config.combine import combine
from uproxy.config.fields import FIELDS, SWITCHES
from uproxy.config.file import read_config
from uproxy.config.settings import Address, Config
from uproxy.core.allocation.pools import Pool, Reservation
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.route import BalancerKind
from uproxy.text.yaml_output import write_yaml

LOWER, UPPER, SPANNING = map(
    AddressRange.parse, ("192.0.2.0/28", "192.0.2.0", "192.0.2.15-192.0.2.16")
)
CHANGED = Config(
    manifests=(Path("/m/a"), Path("/m/b")),
    kubeconfig=Path("/k"),
    context="work",
    apiserver_address=("192.0.2.1:6443", "[2001:db8::1]:443"),
    kubelet_kubeconfig=Path("/kubelet"),
    service_proxy_name="mine",
    tls_relaxed_x509=True,
    node_name="n1",
    nodeport_addresses=("primary", "192.0.2.0/24"),
    cluster_cidr=("10.0.0.0/16", "fd00::/64"),
    external_ip_cidrs=("203.0.113.0/24",),
    claim_addresses="never",
    preserve_client_ip="never",
    io_uring="never",
    busy_poll="never",
    strict_source_ranges=True,
    lb_mode="pools",
    lb_pools=(
        Pool(
            name="a",
            ranges=(LOWER, AddressRange.parse("2001:db8::/120")),
            reservations=(
                Reservation(UPPER),
                Reservation(SPANNING, ObjectName("default", "web")),
            ),
            drained=(SPANNING,),
        ),
        Pool(
            name="default",
            ranges=(AddressRange.parse("192.0.2.16-192.0.2.20"),),
            reservations=(Reservation(SPANNING, ObjectName("default", "web")),),
            drained=(SPANNING, AddressRange.parse("192.0.2.20")),
        ),
    ),
    lb_ip_mode="Proxy",
    announce="never",
    announce_repeat=60.0,
    lease_namespace="leases",
    metallb_namespace="metallb",
    healthz_address=Address("::", 1),
    metrics_address=Address("192.0.2.1", 2),
    metrics_allowed_hosts=("a.example",),
    metrics_per_backend=500,
    bind_address_hard_fail=True,
    workers=3,
    balancer=BalancerKind.RANDOM,
    max_flows=100,
    udp_timeout=1.5,
    tcp_idle_timeout=60.0,
    half_close_timeout=90.0,
    drain_timeout=0.25,
    min_sync_period=1.0,
    sync_period=3600.0,
    state_dir=Path("/s"),
    flow_log="/f",
    flow_log_every=100,
    log_format="json",
    verbosity=2,
)


def test_every_setting_differs_from_its_default() -> None:
    """Otherwise the next test would not miss it."""
    default = Config()
    same = [
        field.name
        for field in dataclasses.fields(Config)
        if field.compare and getattr(CHANGED, field.name) == getattr(default, field.name)
    ]
    assert same == []


def test_every_setting_is_written() -> None:
    """A field of the file that is not would be lost."""
    kube_proxy, own = as_file(CHANGED)
    default = [{**each, "logging": None} for each in as_file(Config())]
    same = [
        field
        for now, before in zip((kube_proxy, own), default, strict=True)
        for field in now
        if now[field] == before[field] and field not in ("apiVersion", "kind", *SWITCHES)
    ]
    assert same == []
    written = {(name,) for name in (*kube_proxy, *own)} | {("clientConnection", "kubeconfig")}
    written |= {("logging", "format"), ("logging", "verbosity")}
    assert set(FIELDS.values()) <= written


CLUSTER = replace(CHANGED, manifests=())
FILES = replace(
    CHANGED,
    kubeconfig=None,
    context="",
    apiserver_address=(),
    kubelet_kubeconfig=Config().kubelet_kubeconfig,
    tls_relaxed_x509=False,
)
"""Objects come from one place or the other."""
OFF = Config(healthz_address=None, metrics_address=None)


@pytest.mark.parametrize(
    "config", [CLUSTER, FILES, Config(), OFF], ids=["cluster", "files", "defaults", "off"]
)
def test_there_and_back(config: Config) -> None:
    written = write_yaml(as_file(config))
    given, warnings = read_config(Path("/x/c.yaml"), written.encode())
    again = combine(given).config
    assert (again, warnings) == (config, ())
    assert write_yaml(as_file(again)) == written


def test_relative_paths_are_written_in_full() -> None:
    """The file may be in another directory, and its paths count from there."""
    _, own = as_file(Config(manifests=(Path("a"),)))
    assert own["manifests"] == [str(Path.cwd() / "a")]


def test_where_each_setting_comes_from() -> None:
    found = origins(Config(origins={"workers": "flag --workers"}))
    assert found["workers"] == "flag --workers"
    assert found["clientConnection.kubeconfig"] == "default"
    assert len(found) == len(FIELDS)
