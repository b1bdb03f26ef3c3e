"""The Helm chart: its values, what it refuses, and that it makes what the kustomization makes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart_readme import readme, values
from tests.deploy.rendering import (
    CHART,
    Object,
    called,
    charted,
    components,
    container_of,
    kustomized,
    only,
    output,
    pod_of,
    settings_of,
    template,
)
from uproxy import __version__
from uproxy.cli.commands.run import command as run

NOT_SETTINGS = {
    # Values of their own.
    "UPROXY_APISERVER_ADDRESS",
    "UPROXY_HEALTHZ_BIND_ADDRESS",
    "UPROXY_KUBELET_KUBECONFIG",
    "UPROXY_METRICS_BIND_ADDRESS",
    "UPROXY_SERVICE_PROXY_NAME",
    # Flags of the DaemonSet, which would win.
    "UPROXY_HOSTNAME_OVERRIDE",
    "UPROXY_LOG_FORMAT",
    "UPROXY_STATE_DIR",
    # For other ways of running uproxy.
    "UPROXY_CONFIG",
    "UPROXY_CONTEXT",
    "UPROXY_KUBECONFIG",
    "UPROXY_MANIFESTS",
    "UPROXY_WRITE_CONFIG_TO",
}
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


@dataclass(frozen=True)
class Choice:
    """The same, said to kustomize and to helm."""

    components: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def __or__(self, other: Choice) -> Choice:
        return Choice(
            self.components + other.components,
            self.settings | other.settings,
            self.values | other.values,
        )


ADDRESS = "192.0.2.1:6443"
LB = {"UPROXY_LB": "node"}
BESIDE = Choice(("alongside-kube-proxy",), {}, {"mode": "alongside-kube-proxy"})
MODES = {
    "replace": Choice(("replace-kube-proxy",)),
    "address": Choice(
        (),
        {"UPROXY_APISERVER_ADDRESS": ADDRESS},
        {"apiServer": {"kubeletKubeconfig": "", "addresses": [ADDRESS]}},
    ),
    "alongside": BESIDE,
    "unprivileged": BESIDE | Choice(("unprivileged",), {}, {"unprivileged": {"enabled": True}}),
}
BALANCERS = {
    "": Choice(),
    "load-balancer": Choice(
        ("load-balancer",), LB, {"settings": LB, "loadBalancer": {"enabled": True}}
    ),
    "metallb": Choice(
        ("load-balancer", "metallb-objects"),
        {},
        {"loadBalancer": {"enabled": True, "metallbObjects": True}},
    ),
}
MONITORING = {
    "": Choice(),
    "monitoring": Choice(("monitoring",), {}, {"monitoring": {"enabled": True}}),
}


IO_URING = {
    "": Choice(),
    "io-uring": Choice(("seccomp",), {}, {"ioUring": {"enabled": True}}),
}


def combinations() -> Iterator[Any]:
    for names in itertools.product(MODES, BALANCERS, MONITORING, IO_URING):
        mode, balancer, monitoring, io_uring = names
        choice = MODES[mode] | BALANCERS[balancer] | MONITORING[monitoring] | IO_URING[io_uring]
        yield pytest.param(choice, id="-".join(filter(None, names)))


@pytest.mark.parametrize("choice", list(combinations()))
def test_it_makes_what_the_kustomization_makes(choice: Choice, tmp_path: Path) -> None:
    ours = by_name(kustomized(tmp_path, *choice.components, settings=choice.settings))
    theirs = by_name(charted(choice.values))
    assert set(theirs) == set(ours)
    for name, each in ours.items():
        assert theirs[name] == each, name


def test_every_component_is_compared() -> None:
    used = {
        name
        for group in (MODES, BALANCERS, MONITORING, IO_URING)
        for choice in group.values()
        for name in choice.components
    }
    assert used == set(components())


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    """By kind and name, without what only helm or only kustomize adds."""
    hashed = {
        each["metadata"]["name"]: re.sub(r"-[bcdfghkmt2456789]{10}$", "", each["metadata"]["name"])
        for each in objects
        if each["kind"] == "ConfigMap"
    }
    for each in objects:
        name = each["metadata"]["name"]
        each["metadata"]["name"] = hashed.get(name, name)
        for label in ("app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart"):
            each["metadata"]["labels"].pop(label, None)
        if each["kind"] == "DaemonSet":
            make_alike(each["spec"]["template"], hashed)
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


def make_alike(pods: Object, hashed: dict[str, str]) -> None:
    """New settings restart Pods: by the name of the ConfigMap, or by an annotation."""
    annotations = pods["metadata"].pop("annotations", {})
    assert set(annotations) <= {"checksum/settings"}
    # A patch puts its volumes first. Their order has no meaning, unlike that of containers.
    pods["spec"]["volumes"].sort(key=lambda each: str(each["name"]))
    for container in pods["spec"]["containers"]:
        for source in container["envFrom"]:
            reference = source["configMapRef"]
            assert annotations or reference["name"] != hashed[reference["name"]]
            reference["name"] = hashed[reference["name"]]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param({"apiServer.kubeletKubeconfig": ""}, "cannot reach the API server", id="api"),
        pytest.param({"unprivileged.enabled": True}, "no ClusterIP", id="unprivileged"),
        pytest.param(
            {"loadBalancer.enabled": True}, "where addresses come from", id="no addresses"
        ),
        pytest.param(
            {"loadBalancer.metallbObjects": True}, "needs loadBalancer.enabled", id="metallb"
        ),
        pytest.param(
            {"settings.UPROXY_LB_POOL": "192.0.2.0/28"}, "need loadBalancer.enabled", id="pool"
        ),
        pytest.param({"settings.UPROXY_LB": "node"}, "need loadBalancer.enabled", id="nodes"),
        pytest.param(
            {"loadBalancer.enabled": True, "settings.UPROXY_LB": "metallb"},
            "needs loadBalancer.metallbObjects",
            id="metallb by its setting",
        ),
        pytest.param({"mode": "beside"}, "mode must be one of", id="mode"),
        pytest.param({"monitorring.enabled": True}, "monitorring is not allowed", id="spelling"),
        pytest.param({"settings.UPROXY_WORKRES": 2}, "UPROXY_WORKRES", id="setting"),
        pytest.param({"ports.health": 70000}, "ports.health", id="port"),
        pytest.param({"image.digest": "latest"}, "image.digest", id="digest"),
        pytest.param(
            {"ports": {"health": 1, "metrics": 1}}, "need ports of their own", id="one port"
        ),
        pytest.param(
            {"ports.metrics": 10349, "monitoring.enabled": True}, "has 10349", id="kube-rbac-proxy"
        ),
        pytest.param({"settings.UPROXY_WORKERS": 1.5}, "UPROXY_WORKERS", id="fraction"),
        pytest.param({"maxUnavailable": 0}, "maxUnavailable", id="no update"),
    ],
)
def test_what_would_not_work_is_refused(given: dict[str, Any], reason: str) -> None:
    done = called("helm", *template(given))
    assert done.returncode != 0
    assert reason in done.stderr


def test_values_take_effect() -> None:
    objects = charted(
        {
            "apiServer.addresses": ["192.0.2.1:6443", "192.0.2.2"],
            "apiServer.kubeletKubeconfig": "/var/lib/rancher/k3s/agent/kubelet.kubeconfig",
            "image.digest": f"sha256:{'0' * 64}",
            "imagePullSecrets": [{"name": "registry"}],
            "ports": {"health": 1, "metrics": 2},
            "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
            "podAnnotations": {"a": "b"},
            "priorityClassName": "",
            "serviceProxyName": "mine",
            "settings": {"UPROXY_MAX_FLOWS": 1000000, "UPROXY_STRICT_SOURCE_RANGES": True},
        }
    )
    assert settings_of(objects) == {
        "UPROXY_APISERVER_ADDRESS": "192.0.2.1:6443,192.0.2.2",
        "UPROXY_HEALTHZ_BIND_ADDRESS": "0.0.0.0:1",
        "UPROXY_MAX_FLOWS": "1000000",
        "UPROXY_METRICS_BIND_ADDRESS": "127.0.0.1:2",
        "UPROXY_SERVICE_PROXY_NAME": "mine",
        "UPROXY_STRICT_SOURCE_RANGES": "true",
        "UPROXY_URL": "http://127.0.0.1:2",
    }
    assert container_of(objects)["image"] == f"uproxy@sha256:{'0' * 64}"
    assert container_of(objects)["ports"][0]["containerPort"] == 1
    pod = pod_of(objects)
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    path = pod["volumes"][0]["hostPath"]["path"]
    assert path == "/var/lib/rancher/k3s/agent/kubelet.kubeconfig"
    pods = only(objects, "DaemonSet")["spec"]["template"]
    assert pods["metadata"]["annotations"]["a"] == "b"
    assert "priorityClassName" not in pod
    for kind in ("PodMonitor", "PrometheusRule"):
        assert only(objects, kind)["metadata"]["labels"]["release"] == "prometheus"


def test_the_roles_are_where_the_settings_say() -> None:
    """Without them, no address is handed out, and no pool is found."""
    settings = {"UPROXY_LEASE_NAMESPACE": "leases", "UPROXY_METALLB_NAMESPACE": "pools"}
    balancer = {"enabled": True, "metallbObjects": True}
    objects = charted({"settings": settings, "loadBalancer": balancer})
    places = {
        (each["kind"], each["metadata"]["name"]): each["metadata"]["namespace"]
        for each in objects
        if each["kind"] in ("Role", "RoleBinding")
    }
    assert places == {
        (kind, name): namespace
        for kind in ("Role", "RoleBinding")
        for name, namespace in (
            ("uproxy-load-balancer", "leases"),
            ("uproxy-metallb-objects", "pools"),
        )
    }


@pytest.mark.parametrize("none", [[], None], ids=["empty", "null"])
def test_all_taints_may_be_respected(none: list[Object] | None) -> None:
    """helm takes a default away with null, of which a template makes the text "null"."""
    assert "tolerations" not in pod_of(charted({"tolerations": none}))


@pytest.mark.parametrize("balancer", [{}, {"enabled": True, "metallbObjects": True}])
def test_there_may_be_no_settings(balancer: dict[str, bool]) -> None:
    assert settings_of(charted({"settings": None, "loadBalancer": balancer}))


def test_texts_stay_as_they_are() -> None:
    """YAML would take some of them for a number, a comment or two fields."""
    odd = "/a: b #c"
    objects = charted(
        {
            "apiServer.kubeletKubeconfig": odd,
            "ioUring": {"enabled": True, "kubeletSeccomp": odd},
            "priorityClassName": "123",
        }
    )
    paths = {each["name"]: each["hostPath"]["path"] for each in pod_of(objects)["volumes"]}
    assert paths["kubelet-kubeconfig"] == paths["seccomp-profiles"] == odd
    assert pod_of(objects)["priorityClassName"] == "123"


def test_numbers_of_a_file_stay_as_they_are(tmp_path: Path) -> None:
    """Those of --set are integers, and those of a file floats."""
    file = tmp_path / "values.yaml"
    file.write_text(
        "settings: {UPROXY_MAX_FLOWS: 1000000}\nterminationGracePeriodSeconds: 1000000\n"
    )
    text = output("helm", *template({}), f"--values={file}")
    assert "      terminationGracePeriodSeconds: 1000000\n" in text
    assert '  UPROXY_MAX_FLOWS: "1000000"\n' in text


def test_a_package_contains_the_files_that_are_links(tmp_path: Path) -> None:
    output("helm", "package", str(CHART), f"--destination={tmp_path}")
    (package,) = tmp_path.glob("*.tgz")
    values = {"monitoring.enabled": True}
    text = output(
        "helm", *(str(package) if each == str(CHART) else each for each in template(values))
    )
    packaged = [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]
    assert packaged == charted(values)


def test_it_is_linted() -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in output("helm", "lint", "--strict", str(CHART))


def test_the_names_of_settings_are_those_of_options() -> None:
    known = {each.envvar for each in run.params if isinstance(each.envvar, str)}
    assert known >= NOT_SETTINGS
    names = SCHEMA["properties"]["settings"]["propertyNames"]["enum"]
    assert names == sorted(known - NOT_SETTINGS)


def test_every_value_has_a_type_and_a_meaning() -> None:
    """And nothing else is accepted but `global`, which helm gives every chart."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    paths = set(typed(SCHEMA))
    for path in paths:
        data = defaults
        for name in path.split("."):
            data = data[name]
    told = {each.path for each in values()}
    assert paths == told


def typed(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The paths of values that are not divided further."""
    assert schema["additionalProperties"] is False
    for name, each in schema["properties"].items():
        if name == "global":
            continue
        if "properties" in each and name != "resources":
            yield from typed(each, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_readme_is_up_to_date() -> None:
    assert (CHART / "README.md").read_text() == readme(), "run `make documents`"


def test_its_version_is_that_of_the_program() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)
