"""What is written is what is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from uproxy.config.as_file import as_file
from uproxy.config.file import read_config
from uproxy.config.settings import Address, Config
from uproxy.core.allocation.pools import Pool, Reservation
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.route import BalancerKind

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
    log_format="json",
    verbosity=2,
)


def test_every_setting_differs_from_its_default() -> None:
    """Otherwise the next test would not miss it."""
    default = Config()
    same = [
        field.name
        for field in dataclasses.fields(Config)
        if getattr(CHANGED, field.name) == getattr(default, field.name)
    ]
    assert same == []


@pytest.mark.parametrize("config", [CHANGED, Config()], ids=["changed", "defaults"])
def test_there_and_back(config: Config) -> None:
    written = msgspec.json.encode(as_file(config))
    assert read_config(Path("/x/c.yaml"), written, workers=1) == (config, ())


def test_an_address_that_is_switched_off() -> None:
    written = as_file(Config(healthz_address=None, metrics_address=None))
    assert (written["healthzBindAddress"], written["metricsBindAddress"]) == ("", "")
