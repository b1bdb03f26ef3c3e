"""KubeProxyConfiguration files: kube-proxy's own, ours, and wrong ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from uproxy.config.combine import combine
from uproxy.config.fields import KUBE_PROXY
from uproxy.config.file import ConfigFileError, load_config, read_config
from uproxy.config.settings import Address, Config
from uproxy.core.route import BalancerKind

HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
OWN = "apiVersion: uproxy.dev/v1alpha1\nkind: UproxyConfiguration\n"

KUBEADM = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json: {infoBufferSize: "0"}
    text: {infoBufferSize: "0"}
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"""


def read(text: str) -> tuple[Config, tuple[str, ...]]:
    given, warnings = read_config(Path("/etc/uproxy/c.yaml"), text.encode())
    return combine(given).config, warnings


def of_its_kind(text: str) -> str:
    """A document that begins with a field of the text: in its third line."""
    return (HEAD if text.partition(":")[0] in KUBE_PROXY.field_names else OWN) + text


def refusal(text: str) -> str:
    with pytest.raises((ConfigFileError, ValueError)) as caught:
        read(text)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix("--config: ").removeprefix("/etc/uproxy/")


def test_the_file_that_kubeadm_writes() -> None:
    config, warnings = read(KUBEADM)
    assert config == Config(
        cluster_cidr=("10.244.0.0/16",), kubeconfig=Path("/var/lib/kube-proxy/kubeconfig.conf")
    )
    assert warnings == ()


@pytest.mark.parametrize("text", [HEAD, OWN, HEAD + "---\n" + OWN])
def test_an_empty_configuration_is_the_default(text: str) -> None:
    assert read(text) == (Config(), ())


@pytest.mark.parametrize(
    "texts",
    [(HEAD + "clusterCIDR: 10.0.0.0/8\n", OWN + "workers: 3\n")],
    ids=["both"],
)
def test_one_file_may_have_both_kinds_in_any_order(texts: tuple[str, str]) -> None:
    for one, other in (texts, texts[::-1]):
        config, warnings = read(f"{one}---\n{other}")
        assert (config.cluster_cidr, config.workers, warnings) == (("10.0.0.0/8",), 3, ())


def test_an_address_is_switched_off_whatever_it_is() -> None:
    texts = HEAD + "healthzBindAddress: 0.0.0.0:1\n", OWN + "serveHealthz: false\n"
    for one, other in (texts, texts[::-1]):
        config, _ = read(f"{one}---\n{other}")
        assert (config.healthz_address, config.metrics_address) == (None, Config().metrics_address)
    assert read(OWN + "serveHealthz: true")[0].healthz_address == Config().healthz_address


def test_each_value_knows_its_line() -> None:
    given, _ = read_config(Path("c.yaml"), (HEAD + "\nlogging:\n  verbosity: 2\n").encode())
    assert str(given["verbosity"]) == "logging.verbosity in c.yaml:5"


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        pytest.param("hostnameOverride: Node-1", "node_name", "Node-1", id="node-name"),
        pytest.param(
            "nodePortAddresses: [primary, 10.0.0.1/8]",
            "nodeport_addresses",
            ("primary", "10.0.0.0/8"),
            id="nodeports",
        ),
        pytest.param(
            "clusterCIDR: 10.0.0.0/8,fd00::/8",
            "cluster_cidr",
            ("10.0.0.0/8", "fd00::/8"),
            id="dual-stack-pods",
        ),
        pytest.param(
            "healthzBindAddress: '[::]:1'", "healthz_address", Address("::", 1), id="healthz"
        ),
        pytest.param(
            "metricsBindAddress: 0.0.0.0:1", "metrics_address", Address("0.0.0.0", 1), id="metrics"
        ),
        pytest.param("bindAddressHardFail: true", "bind_address_hard_fail", True, id="hard-fail"),
        pytest.param("udpTimeout: 250ms", "udp_timeout", 0.25, id="udp"),
        pytest.param("tcpIdleTimeout: 0s", "tcp_idle_timeout", 0.0, id="tcp-never"),
        pytest.param("tcpIdleTimeout: 0", "tcp_idle_timeout", 0.0, id="tcp-zero-without-quotes"),
        pytest.param("tcpIdleTimeout: null", "tcp_idle_timeout", 86400.0, id="null-is-unset"),
        pytest.param("halfCloseTimeout: 1m", "half_close_timeout", 60.0, id="half-close"),
        pytest.param("drainTimeout: 1m30s", "drain_timeout", 90.0, id="drain"),
        pytest.param("syncPeriod: 1m", "sync_period", 60.0, id="sync"),
        pytest.param("minSyncPeriod: 1s", "min_sync_period", 1.0, id="min-sync"),
        pytest.param("minSyncPeriod: 0s", "min_sync_period", 0.0, id="no-min-sync"),
        pytest.param("workers: 3", "workers", 3, id="workers"),
        pytest.param(
            "balancer: least-connections", "balancer", BalancerKind.LEAST_CONNECTIONS, id="balancer"
        ),
        pytest.param("maxFlows: 10", "max_flows", 10, id="max-flows"),
        pytest.param(
            "externalIPCIDRs: [192.0.2.0/24]",
            "external_ip_cidrs",
            ("192.0.2.0/24",),
            id="external-ips",
        ),
        pytest.param(
            'metricsAllowedHosts: [Node7.example.com, "*"]',
            "metrics_allowed_hosts",
            ("node7.example.com", "*"),
            id="metrics-hosts",
        ),
        pytest.param("metricsPerBackend: 500", "metrics_per_backend", 500, id="per-backend"),
        pytest.param("claimAddresses: never", "claim_addresses", "never", id="claims"),
        pytest.param("strictSourceRanges: true", "strict_source_ranges", True, id="strict"),
        pytest.param(
            "manifests: [x, /y]", "manifests", (Path("/etc/uproxy/x"), Path("/y")), id="manifests"
        ),
        pytest.param(
            "clientConnection: {kubeconfig: k}",
            "kubeconfig",
            Path("/etc/uproxy/k"),
            id="kubeconfig",
        ),
        pytest.param("context: work", "context", "work", id="context"),
        pytest.param(
            "apiServerAddresses: [192.0.2.1, 'lb.example:443']",
            "apiserver_address",
            ("192.0.2.1:6443", "lb.example:443"),
            id="apiserver-addresses",
        ),
        pytest.param(
            "kubeletKubeconfig: k",
            "kubelet_kubeconfig",
            Path("/etc/uproxy/k"),
            id="kubelet-kubeconfig",
        ),
        pytest.param("serviceProxyName: mine", "service_proxy_name", "mine", id="proxy-name"),
        pytest.param(
            "preserveClientIP: local", "preserve_client_ip", "local", id="preserve-client-ip"
        ),
        pytest.param("ioUring: never", "io_uring", "never", id="io-uring"),
        pytest.param("busyPoll: never", "busy_poll", "never", id="busy-poll"),
        pytest.param("tlsRelaxedX509: true", "tls_relaxed_x509", True, id="relaxed-x509"),
        pytest.param("stateDir: state", "state_dir", Path("/etc/uproxy/state"), id="state-dir"),
        pytest.param("logging: {format: json}", "log_format", "json", id="log-format"),
        pytest.param("logging: {verbosity: 3}", "verbosity", 3, id="verbosity"),
    ],
)
def test_fields(text: str, field: str, value: Any) -> None:
    config, warnings = read(of_its_kind(text))
    assert warnings == ()
    assert getattr(config, field) == value


def test_json_is_yaml() -> None:
    text = '{"apiVersion": "uproxy.dev/v1alpha1", "kind": "UproxyConfiguration", "workers": 2}'
    assert read(text)[0].workers == 2


def test_fields_of_kernel_modes_get_one_warning() -> None:
    _, warnings = read(
        HEAD
        + """\
mode: ipvs
oomScoreAdj: -998
conntrack: {maxPerCore: 32768, min: 0, tcpEstablishedTimeout: 24h}
iptables: {masqueradeBit: 14, syncPeriod: 30s, masqueradeAll: false}
ipvs: {scheduler: lc, excludeCIDRs: [10.0.0.0/8]}
featureGates: {A: true}
udpIdleTimeout: 1m
detectLocalMode: ClusterCIDR
bindAddress: "::"
"""
    )
    [warning] = warnings
    assert warning.partition(": ignored, as they have no effect in uproxy: ")[2].split(", ") == [
        "mode",
        "oomScoreAdj",
        "conntrack.maxPerCore",
        "conntrack.tcpEstablishedTimeout",
        "iptables.masqueradeBit",
        "iptables.syncPeriod",
        "ipvs.scheduler",
        "ipvs.excludeCIDRs",
        "featureGates.A",
        "udpIdleTimeout",
    ]


def test_other_ways_to_recognise_pods_are_named_in_a_warning() -> None:
    _, warnings = read(
        HEAD + "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}"
    )
    [warning] = warnings
    assert warning.endswith("uproxy: detectLocalMode, detectLocal.bridgeInterface")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "workerz: 2", 'c.yaml:3: workerz: unknown field; did you mean "workers"?', id="unknown"
        ),
        pytest.param("xyz: 2", "c.yaml:3: xyz: unknown field", id="unknown-without-a-guess"),
        pytest.param(
            "iptables:\n  masqueradBit: 3",
            'c.yaml:4: iptables.masqueradBit: unknown field; did you mean "masqueradeBit"?',
            id="unknown-inside",
        ),
        pytest.param(
            "workers: 1\nworkers: 2",
            'c.yaml:4: the key "workers" is given twice; remove one',
            id="duplicate",
        ),
        pytest.param("a: b: c", "c.yaml:3: not YAML: mapping values are not allowed", id="syntax"),
        pytest.param(
            "workers: 1\n---\na: b",
            'c.yaml:5: apiVersion and kind are missing; begin with "apiVersion: '
            'uproxy.dev/v1alpha1" and "kind: UproxyConfiguration"',
            id="unknown-document",
        ),
        pytest.param(
            f"workers: 1\n---\n{OWN}",
            "c.yaml:5: a second UproxyConfiguration; give only one",
            id="second-document",
        ),
        pytest.param(
            "mode: ipvs\nworkers: 2",
            "c.yaml:4: workers: is a field of UproxyConfiguration; put it into a document of that",
            id="field-of-uproxy",
        ),
        pytest.param(
            "workers: 2\nclusterCIDR: 10.0.0.0/8",
            "c.yaml:4: clusterCIDR: is a field of KubeProxyConfiguration; put it into a document",
            id="field-of-kube-proxy",
        ),
        pytest.param(
            "syncPeriod: 0s", 'c.yaml:3: syncPeriod: "0s" is zero; give more', id="sync-period"
        ),
        pytest.param(
            "syncPeriod: -1s", 'c.yaml:3: syncPeriod: "-1s" is negative', id="negative-period"
        ),
        pytest.param(
            "syncPeriod: 1s\nminSyncPeriod: 2s",
            "c.yaml:4: minSyncPeriod: 2s is longer than the sync period (1s)",
            id="min-sync-period",
        ),
        pytest.param(
            "iptables:\n  syncPeriod: 1s\n  minSyncPeriod: 2s",
            "c.yaml:5: iptables.minSyncPeriod: is longer than syncPeriod",
            id="kernel-min-sync-period",
        ),
        pytest.param(
            "configSyncPeriod: -1s", 'c.yaml:3: configSyncPeriod: "-1s" is negative', id="resync"
        ),
        pytest.param(
            "drainTimeout: 10",
            'c.yaml:3: drainTimeout: "10" has no unit; give 10s for seconds',
            id="duration-without-unit",
        ),
        pytest.param(
            "drainTimeout: true", "c.yaml:3: drainTimeout: expected text, found", id="no-duration"
        ),
        pytest.param(
            "bindAddress: foo", 'c.yaml:3: bindAddress: "foo" is not a valid IP address', id="bind"
        ),
        pytest.param(
            "healthzBindAddress: 10.10.10.10",
            'c.yaml:3: healthzBindAddress: "10.10.10.10" is not IP:port',
            id="healthz-without-port",
        ),
        pytest.param(
            "metricsBindAddress: 1.2.3.4:65536",
            'c.yaml:3: metricsBindAddress: "1.2.3.4:65536" has no valid port',
            id="metrics-port",
        ),
        pytest.param(
            "nodePortAddresses:\n- primary\n- 10.20.30.40\n",
            'c.yaml:5: nodePortAddresses[1]: "10.20.30.40" is not a CIDR, primary,',
            id="nodeports",
        ),
        pytest.param(
            "nodePortAddresses: 10.0.0.0/8",
            'c.yaml:3: nodePortAddresses: expected a list, found "10.0.0.0/8"',
            id="nodeports-not-a-list",
        ),
        pytest.param(
            "nodePortAddresses: ['1.0.0.0/8,2.0.0.0/8']",
            "is not one CIDR; give a list",
            id="nodeports-with-comma",
        ),
        pytest.param(
            "clusterCIDR: 10.0.0.0/8,11.0.0.0/8", "has two IPv4 CIDRs", id="pods-of-one-family"
        ),
        pytest.param("oomScoreAdj: 1001", "oomScoreAdj: expected a whole number <= 1000", id="oom"),
        pytest.param(
            "iptables: {masqueradeBit: 32}", "iptables.masqueradeBit: expected a whole", id="bit"
        ),
        pytest.param("conntrack: {min: -1}", "conntrack.min: expected a whole number", id="count"),
        pytest.param(
            "clientConnection: {burst: -1}", "clientConnection.burst: expected", id="burst"
        ),
        pytest.param(
            "detectLocalMode: Magic",
            'detectLocalMode: "Magic" is not BridgeInterface, ClusterCIDR, InterfaceNamePrefix',
            id="detection",
        ),
        pytest.param(
            "detectLocalMode: BridgeInterface",
            "detectLocal.bridgeInterface: is required with detectLocalMode BridgeInterface",
            id="bridge",
        ),
        pytest.param(
            "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {bridgeInterface: x}",
            "c.yaml:4: detectLocal.interfaceNamePrefix: is required",
            id="prefix",
        ),
        pytest.param(
            "detectLocal: {bridgeInterface: abcdefghijklmnop}",
            "detectLocal.bridgeInterface: expected text of length <= 15",
            id="interface-name",
        ),
        pytest.param(
            "workers: 65", "workers: expected a whole number <= 64, found 65", id="workers"
        ),
        pytest.param("workers: '2'", 'found "2"; write it without quotes', id="workers-in-quotes"),
        pytest.param(
            "balancer: randon", 'balancer: "randon" is not round-robin, random or', id="balancer"
        ),
        pytest.param("mode: magic", 'mode: "magic" is not iptables, ipvs', id="mode"),
        pytest.param(
            "logging: {format: xml}", 'logging.format: "xml" is not json or text', id="log"
        ),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    assert message in refusal(of_its_kind(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "", "c.yaml:1: empty; a KubeProxyConfiguration or UproxyConfiguration is", id="empty"
        ),
        pytest.param("- a", "c.yaml:1: a mapping is expected, with apiVersion and kind", id="list"),
        pytest.param(
            "kind: UproxyConfiguration", "c.yaml:1: apiVersion: is missing; ", id="version"
        ),
        pytest.param(
            HEAD.replace("v1alpha1", "v1"), 'c.yaml:1: apiVersion: is "kubeproxy', id="version"
        ),
        pytest.param(
            "clusterCIDR: 10.0.0.0/8",
            'c.yaml:1: apiVersion and kind are missing; begin with "apiVersion: kubeproxy.config',
            id="nothing",
        ),
        pytest.param(
            OWN.replace("tion\n", "ton\n"),
            'c.yaml:2: kind: is "UproxyConfiguraton"; expected KubeProxyConfiguration or '
            'UproxyConfiguration; did you mean "UproxyConfiguration"?',
            id="misspelt-kind",
        ),
        pytest.param(HEAD.replace("KubeProxyC", "C"), 'c.yaml:2: kind: is "Config', id="kind"),
    ],
)
def test_files_that_are_something_else(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_a_pool_without_text() -> None:
    assert refusal(OWN + "lbPools: ['']").startswith('c.yaml:3: lbPools: "" has no addresses;')


def test_a_file_that_is_not_utf8() -> None:
    with pytest.raises(ConfigFileError, match=r"c\.yaml:3: not UTF-8"):
        read_config(Path("c.yaml"), HEAD.encode() + b"\xff")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (OWN + 'flowLog: "a\\0b"', "flowLog"),
        (OWN + 'manifests: [x, "a\\0b"]', "manifests"),
        (OWN + 'stateDir: "\\0"', "stateDir"),
        (HEAD + 'clientConnection: {kubeconfig: "\\0"}', "clientConnection.kubeconfig"),
    ],
)
def test_a_path_that_no_file_can_have(text: str, field: str) -> None:
    assert refusal(text) == f"c.yaml:3: {field}: contains a NUL character; leave it out"


def test_reading_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with pytest.raises(ConfigFileError, match="no such file or directory"):
        load_config(path)
    path.write_text(OWN + "manifests: [.]")
    assert load_config(path).given["manifests"].value == (tmp_path,)


def test_a_pipe_into_which_nothing_is_written_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.yaml")
    with pytest.raises(ConfigFileError, match=r"c\.yaml: timed out before the end of the file"):
        load_config(tmp_path / "c.yaml", patience=0)


def test_pools_are_checked_with_their_line() -> None:
    text = OWN + "lbPools: [192.0.2.0/28, b=192.0.2.8]\n"
    assert refusal(text) == (
        "c.yaml:3: lbPools: 192.0.2.0-192.0.2.15 and 192.0.2.8 of pools default and b overlap; "
        "give each address once"
    )
    assert refusal(OWN + "lbPools: [192.0.2]\n") == (
        'c.yaml:3: lbPools[0]: "192.0.2" is not a range; write FIRST-LAST or a CIDR'
    )


def test_pools_imply_their_mode() -> None:
    config, warnings = read(OWN + "lbPools: [192.0.2.0/28]\nlbIPMode: proxy\n")
    assert (config.lb_mode, config.lb_ip_mode, warnings) == ("pools", "Proxy", ())
