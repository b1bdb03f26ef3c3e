"""The Config that `uproxy run` makes of its flags, variables and file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from uproxy.cli.effective_config import Resolved, resolve
from uproxy.cli.flags import config_options, default_workers
from uproxy.config.combine import setting_of
from uproxy.config.fields import FIELDS
from uproxy.config.settings import Address, Config
from uproxy.core.allocation.pools import Pool, Reservation
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.route import BalancerKind

parse = AddressRange.parse

_KUBE_PROXY = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
_OWN = "apiVersion: uproxy.dev/v1alpha1\nkind: UproxyConfiguration\n"


@click.command("run")
@config_options
@click.pass_context
def command(ctx: click.Context, /, **_: object) -> Resolved:
    return resolve(ctx, os.environ, "Host")


def invoke(*args: str, environ: Mapping[str, str] | None = None) -> Resolved:
    """Raises click.UsageError."""
    clean = {name: None for name in os.environ if name.startswith("UPROXY_") or name == "NODE_NAME"}
    result = CliRunner().invoke(
        command,
        args,
        prog_name="uproxy run",
        standalone_mode=False,
        env={**clean, **(environ or {})},
    )
    if result.exception is not None:
        raise result.exception
    found: Resolved = result.return_value
    return found


def config_of(*args: str, **environ: str) -> Config:
    config, warnings = invoke(*args, environ=environ)
    assert warnings == ()
    return config


def refusal(*args: str, **environ: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        invoke(*args, environ=environ)
    assert caught.value.exit_code == 2
    return caught.value.format_message()


def test_defaults_are_those_of_config() -> None:
    assert config_of() == Config(node_name="host", workers=default_workers())


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        pytest.param(
            ["--manifests", "a", "--manifests=b"],
            "manifests",
            (Path("a"), Path("b")),
            id="manifests",
        ),
        pytest.param(["--kubeconfig", "k"], "kubeconfig", Path("k"), id="kubeconfig"),
        pytest.param(["--context", "work"], "context", "work", id="context"),
        pytest.param(
            ["--apiserver-address", "192.0.2.1,[2001:DB8::1]:443", "--apiserver-address=LB:6444"],
            "apiserver_address",
            ("192.0.2.1:6443", "[2001:db8::1]:443", "lb:6444"),
            id="apiserver-addresses",
        ),
        pytest.param(
            ["--kubelet-kubeconfig", "k"], "kubelet_kubeconfig", Path("k"), id="kubelet-kubeconfig"
        ),
        pytest.param(
            ["--service-proxy-name", "my.proxy"], "service_proxy_name", "my.proxy", id="proxy-name"
        ),
        pytest.param(
            ["--preserve-client-ip", "never"], "preserve_client_ip", "never", id="client-ip"
        ),
        pytest.param(
            ["--preserve-client-ip", "local"], "preserve_client_ip", "local", id="client-ip local"
        ),
        pytest.param(["--io-uring", "never"], "io_uring", "never", id="io-uring"),
        pytest.param(["--busy-poll", "never"], "busy_poll", "never", id="busy-poll"),
        pytest.param(["--tls-relaxed-x509"], "tls_relaxed_x509", True, id="relaxed-x509"),
        pytest.param(["--hostname-override", "Node-1 "], "node_name", "node-1", id="node-name"),
        pytest.param(
            ["--nodeport-addresses", "primary,10.0.0.0/8", "--nodeport-addresses", "localhost"],
            "nodeport_addresses",
            ("primary", "10.0.0.0/8", "localhost"),
            id="commas-and-repeated",
        ),
        pytest.param(
            ["--cluster-cidr", "10.0.0.0/8,fd00::/8"],
            "cluster_cidr",
            ("10.0.0.0/8", "fd00::/8"),
            id="cluster-cidr",
        ),
        pytest.param(["--cluster-cidr", ""], "cluster_cidr", (), id="no-cluster-cidr"),
        pytest.param(
            ["--external-ip-cidrs", "192.0.2.0/24"],
            "external_ip_cidrs",
            ("192.0.2.0/24",),
            id="external-ips",
        ),
        pytest.param(
            ["--metrics-allowed-hosts", "Node7.example.com,x", "--metrics-allowed-hosts", "*"],
            "metrics_allowed_hosts",
            ("node7.example.com", "x", "*"),
            id="metrics-hosts",
        ),
        pytest.param(["--claim-addresses", "never"], "claim_addresses", "never", id="claims"),
        pytest.param(["--lb", "node"], "lb_mode", "node", id="lb"),
        pytest.param(["--lb-pool", "192.0.2.1"], "lb_mode", "pools", id="pools-are-implied"),
        pytest.param(
            [
                *("--lb-pool", "192.0.2.0/31,2001:db8::1", "--lb-pool", "b=192.0.2.2"),
                *("--lb-reserve", "192.0.2.1=default/web", "--lb-drain", "192.0.2.2"),
            ],
            "lb_pools",
            (
                Pool(name="b", ranges=(parse("192.0.2.2"),), drained=(parse("192.0.2.2"),)),
                Pool(
                    name="default",
                    ranges=(parse("192.0.2.0/31"), parse("2001:db8::1")),
                    reservations=(Reservation(parse("192.0.2.1"), ObjectName("default", "web")),),
                ),
            ),
            id="pools",
        ),
        pytest.param(["--lb-ip-mode", "vip"], "lb_ip_mode", "VIP", id="ip-mode"),
        pytest.param(
            ["--lb-pool", "192.0.2.1", "--announce", "routes"], "announce", "routes", id="announce"
        ),
        pytest.param(
            ["--lb", "metallb", "--announce-repeat", "1m"],
            "announce_repeat",
            60.0,
            id="announce-repeat",
        ),
        pytest.param(["--lease-namespace", "x"], "lease_namespace", "x", id="lease-namespace"),
        pytest.param(["--metallb-namespace", "x"], "metallb_namespace", "x", id="metallb"),
        pytest.param(["--strict-source-ranges"], "strict_source_ranges", True, id="strict"),
        pytest.param(
            ["--strict-source-ranges=false"], "strict_source_ranges", False, id="not-strict"
        ),
        pytest.param(
            ["--healthz-bind-address", "[::]:10256"],
            "healthz_address",
            Address("::", 10256),
            id="healthz",
        ),
        pytest.param(
            ["--healthz-bind-address", "127.0.0.1"],
            "healthz_address",
            Address("127.0.0.1", 10256),
            id="healthz-default-port",
        ),
        pytest.param(["--healthz-bind-address", ""], "healthz_address", None, id="no-healthz"),
        pytest.param(
            ["--metrics-bind-address=::1"],
            "metrics_address",
            Address("::1", 10249),
            id="metrics-default-port",
        ),
        pytest.param(["--metrics-bind-address="], "metrics_address", None, id="no-metrics"),
        pytest.param(["--bind-address-hard-fail"], "bind_address_hard_fail", True, id="switch"),
        pytest.param(
            ["--bind-address-hard-fail", "--workers=2"],
            "bind_address_hard_fail",
            True,
            id="switch-2",
        ),
        pytest.param(
            ["--bind-address-hard-fail=true"], "bind_address_hard_fail", True, id="switch-as-in-go"
        ),
        pytest.param(
            ["--bind-address-hard-fail=False"], "bind_address_hard_fail", False, id="switched-off"
        ),
        pytest.param(["--workers", "3"], "workers", 3, id="workers"),
        pytest.param(["--balancer", "random"], "balancer", BalancerKind.RANDOM, id="balancer"),
        pytest.param(["--metrics-per-backend"], "metrics_per_backend", 1000, id="per-backend"),
        pytest.param(["--metrics-per-backend=7"], "metrics_per_backend", 7, id="few-backends"),
        pytest.param(["--max-flows", "1000"], "max_flows", 1000, id="max-flows"),
        pytest.param(["--udp-timeout", "1m30s"], "udp_timeout", 90.0, id="udp-timeout"),
        pytest.param(["--tcp-idle-timeout", "0"], "tcp_idle_timeout", 0.0, id="tcp-never"),
        pytest.param(["--half-close-timeout=5m"], "half_close_timeout", 300.0, id="half-close"),
        pytest.param(["--drain-timeout", "0"], "drain_timeout", 0.0, id="no-drain"),
        pytest.param(["--min-sync-period", "0"], "min_sync_period", 0.0, id="min-sync"),
        pytest.param(["--sync-period", "250ms"], "sync_period", 0.25, id="sync"),
        pytest.param(["--state-dir", "/x"], "state_dir", Path("/x"), id="state-dir"),
        pytest.param(["--log-format", "JSON"], "log_format", "json", id="log-format"),
        pytest.param(["-v"], "verbosity", 1, id="v"),
        pytest.param(["-vv"], "verbosity", 2, id="vv"),
        pytest.param(["-v", "4"], "verbosity", 4, id="v-space"),
        pytest.param(["-v=4"], "verbosity", 4, id="v-as-in-go"),
        pytest.param(["--v=4"], "verbosity", 4, id="long-v"),
        pytest.param(["--verbosity", "4"], "verbosity", 4, id="verbosity"),
    ],
)
def test_flags(args: list[str], field: str, value: Any) -> None:
    assert getattr(config_of(*args), field) == value


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        pytest.param("UPROXY_WORKERS", "3", "workers", 3, id="number"),
        pytest.param("UPROXY_MANIFESTS", "a:b", "manifests", (Path("a"), Path("b")), id="paths"),
        pytest.param(
            "UPROXY_NODEPORT_ADDRESSES",
            "primary,10.0.0.0/8",
            "nodeport_addresses",
            ("primary", "10.0.0.0/8"),
            id="list",
        ),
        pytest.param(
            "UPROXY_APISERVER_ADDRESS",
            "192.0.2.1,192.0.2.2:443",
            "apiserver_address",
            ("192.0.2.1:6443", "192.0.2.2:443"),
            id="apiserver-addresses",
        ),
        pytest.param(
            "UPROXY_LB_POOL",
            "192.0.2.1,192.0.2.3 b=192.0.2.2",
            "lb_pools",
            (
                Pool(name="b", ranges=(parse("192.0.2.2"),)),
                Pool(name="default", ranges=(parse("192.0.2.1"), parse("192.0.2.3"))),
            ),
            id="pools",
        ),
        pytest.param("UPROXY_DRAIN_TIMEOUT", "5s", "drain_timeout", 5.0, id="duration"),
        pytest.param(
            "UPROXY_BIND_ADDRESS_HARD_FAIL", "true", "bind_address_hard_fail", True, id="switch"
        ),
        pytest.param("UPROXY_HOSTNAME_OVERRIDE", "N", "node_name", "n", id="node-name"),
        pytest.param("NODE_NAME", "N", "node_name", "n", id="downward-api"),
        pytest.param("UPROXY_VERBOSITY", "2", "verbosity", 2, id="verbosity"),
    ],
)
def test_variables(variable: str, text: str, field: str, value: Any) -> None:
    assert getattr(config_of(**{variable: text}), field) == value


def test_a_flag_wins_over_a_variable() -> None:
    assert config_of("--workers", "3", UPROXY_WORKERS="5").workers == 3
    assert config_of("--hostname-override", "a", NODE_NAME="b").node_name == "a"


def test_the_default_number_of_workers_is_bounded() -> None:
    assert default_workers() == min(4, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(
            ["--workers", "many"],
            '--workers: "many" is not a whole number; give 1 to 64, for example --workers 2',
            id="workers",
        ),
        pytest.param(
            ["--service-proxy-name", "a/b"],
            '--service-proxy-name: "a/b" is not a label value; give up to 63 letters, digits, "-", '
            '"_" and "."',
            id="proxy-name",
        ),
        pytest.param(
            ["--workers=0"],
            '--workers: "0" is out of range; give 1 to 64, for example --workers 2',
            id="no-workers",
        ),
        pytest.param(
            ["--udp-timeout", "10"],
            '--udp-timeout: "10" has no unit; give 10s for seconds',
            id="duration",
        ),
        pytest.param(
            ["--sync-period", "0"],
            '--sync-period: "0" is zero; give more, for example 30s',
            id="zero",
        ),
        pytest.param(
            ["--min-sync-period", "1m"],
            "--min-sync-period: 1m is longer than the sync period (30s); give a shorter time",
            id="periods",
        ),
        pytest.param(
            ["--balancer", "randon"],
            '--balancer: "randon" is not round-robin, random or least-connections; '
            "did you mean random?",
            id="balancer",
        ),
        pytest.param(
            ["--nodeport-addresses", "primary", "--nodeport-addresses", "10.0.0.1"],
            '--nodeport-addresses: "10.0.0.1" is not a CIDR, primary, localhost or all; '
            "give 10.0.0.1/32 for one address",
            id="nodeports",
        ),
        pytest.param(
            ["--healthz-bind-address", "localhost"],
            '--healthz-bind-address: "localhost" has no valid IP address; '
            "give for example 0.0.0.0:10256",
            id="healthz",
        ),
        pytest.param(
            ["--lb-pool", "192.0.2.9-192.0.2.1"],
            '--lb-pool: "192.0.2.9-192.0.2.1" ends before it begins; give 192.0.2.1-192.0.2.9',
            id="range",
        ),
        pytest.param(
            ["--lb", "pools"],
            "--lb: pools needs addresses; give a pool, for example 192.0.2.10-192.0.2.50",
            id="no-pools",
        ),
        pytest.param(
            ["--lb", "metallb", "--manifests", "x"],
            "--lb: metallb reads IPAddressPools from a cluster, but the objects come from "
            "manifests; give pools instead",
            id="no-cluster",
        ),
        pytest.param(
            ["--metallb-namespace", ""],
            '--metallb-namespace: "" is not the name of a namespace; give up to 63 lower-case '
            'letters, digits and "-"',
            id="namespace",
        ),
        pytest.param(
            ["--log-format", "xml"], '--log-format: "xml" is not text or json', id="log-format"
        ),
        pytest.param(
            ["--config", "/nowhere/x.yaml"],
            "--config: /nowhere/x.yaml: no such file or directory",
            id="config",
        ),
    ],
)
def test_bad_flags(args: list[str], message: str) -> None:
    assert refusal(*args) == message


def test_a_bad_variable_is_named() -> None:
    assert refusal(UPROXY_WORKERS="x").startswith('UPROXY_WORKERS: "x" is not a whole number')


def test_an_unknown_flag() -> None:
    assert "--wrokers" in refusal("--wrokers", "2")


def written(directory: Path, *texts: str) -> str:
    """A file with documents of these kinds."""
    path = directory / "c.yaml"
    path.write_text("---\n".join(texts))
    return str(path)


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(tmp_path: Path) -> None:
    """For each option by itself."""
    path = written(
        tmp_path,
        f"{_KUBE_PROXY}hostnameOverride: a\nclusterCIDR: 10.0.0.0/8\nlogging: {{verbosity: 1}}\n",
        f"{_OWN}workers: 3\nmaxFlows: 10\nbalancer: random\n",
    )
    config, warnings = invoke(
        *("--config", path, "--workers", "7"),
        environ={"UPROXY_WORKERS": "5", "UPROXY_MAX_FLOWS": "20", "NODE_NAME": "n"},
    )
    assert warnings == ()
    assert config == Config(
        workers=7,
        max_flows=20,
        balancer=BalancerKind.RANDOM,
        node_name="a",
        cluster_cidr=("10.0.0.0/8",),
        verbosity=1,
    )
    assert config.origins == {
        "workers": "flag --workers",
        "maxFlows": "variable UPROXY_MAX_FLOWS",
        "balancer": f"balancer in {path}:11",
        "hostnameOverride": f"hostnameOverride in {path}:3",
        "clusterCIDR": f"clusterCIDR in {path}:4",
        "logging.verbosity": f"logging.verbosity in {path}:5",
    }


def test_the_name_that_the_downward_api_gives() -> None:
    config, _ = invoke(environ={"NODE_NAME": "n"})
    assert (config.node_name, config.origins) == ("n", {"hostnameOverride": "variable NODE_NAME"})


def test_flags_win_with_what_they_switch_off_or_empty(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"{_KUBE_PROXY}healthzBindAddress: 0.0.0.0:1\nbindAddressHardFail: true\n",
        f"{_OWN}lbPools: [192.0.2.0/24]\nlbDrained: [192.0.2.1]\n",
    )
    args = ["--healthz-bind-address=", "--bind-address-hard-fail=false"]
    config, _ = invoke("--config", path, *args, "--lb-pool", "192.0.2.0/30")
    assert (config.healthz_address, config.bind_address_hard_fail) == (None, False)
    (pool,) = config.lb_pools
    assert (pool.ranges, pool.drained) == ((parse("192.0.2.0/30"),), (parse("192.0.2.1"),))


def test_what_is_wrong_only_together_is_blamed_on_who_said_it(tmp_path: Path) -> None:
    path = written(tmp_path, f"{_OWN}minSyncPeriod: 1m\nsyncPeriod: 2m\n")
    assert refusal("--config", path, "--sync-period", "30s") == (
        f"--config: {path}:3: minSyncPeriod: 1m is longer than the sync period (30s); give a "
        "shorter time"
    )
    assert refusal(UPROXY_SYNC_PERIOD="10ms") == (
        "UPROXY_SYNC_PERIOD: 10ms is shorter than the minimum sync period (20ms); give a longer "
        "time"
    )


class TestWhereObjectsComeFrom:
    """From manifests or from a cluster; whoever runs a file of kube-proxy's on manifests wants
    those."""

    def test_manifests_of_a_flag_win_over_a_cluster_of_the_file(self, tmp_path: Path) -> None:
        path = written(tmp_path, f"{_KUBE_PROXY}clientConnection: {{kubeconfig: /k}}\n")
        config, warnings = invoke("--config", path, "--manifests", "x")
        assert (config.manifests, config.kubeconfig) == ((Path("x"),), None)
        assert warnings == (
            f"clientConnection.kubeconfig in {path}:3 has no effect, because the objects come from "
            "manifests",
        )

    def test_a_cluster_of_a_flag_wins_over_manifests_of_the_file(self, tmp_path: Path) -> None:
        path = written(tmp_path, f"{_OWN}manifests: [x]\ncontext: work\n")
        config, warnings = invoke("--config", path, "--kubeconfig", "k")
        assert (config.manifests, config.kubeconfig, config.context) == ((), Path("k"), "work")
        assert warnings == (
            f"manifests in {path}:3 has no effect, because the objects come from a cluster",
        )

    @pytest.mark.parametrize(
        "flag", ["--kubeconfig", "--context", "--apiserver-address", "--kubelet-kubeconfig"]
    )
    def test_both_as_flags_are_a_mistake(self, flag: str) -> None:
        assert refusal("--manifests", "x", flag, "y") == (
            f"--manifests: objects come either from manifests or from a cluster ({flag}); leave "
            "one out"
        )

    def test_both_in_one_file_are_a_mistake(self, tmp_path: Path) -> None:
        path = written(tmp_path, f"{_OWN}manifests: [x]\ncontext: work\n")
        assert refusal("--config", path).startswith(f"--config: {path}:3: manifests: objects come")


def test_help_names_every_field_of_config() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    named = {"node_name": "hostname-override"}
    named |= {f"{name}_address": f"{name}-bind-address" for name in ("healthz", "metrics")}
    named |= {"lb_mode": "lb", "lb_pools": "lb-pool"}
    for field in (each.name for each in dataclasses.fields(Config) if each.compare):
        assert f"--{named.get(field, field.replace('_', '-'))}" in text


def test_every_flag_has_a_field_in_the_file() -> None:
    flags = {each.name for each in command.params} - {"config", "write_config_to", "help"}
    assert flags == set(FIELDS)
    assert {setting_of(each) for each in FIELDS} == {
        each.name for each in dataclasses.fields(Config) if each.compare
    }
