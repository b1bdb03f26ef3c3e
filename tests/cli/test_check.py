"""`uproxy check`: what it prints, and with which code it exits."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tests.cli.test_untrusted_text import Called, call
from tests.nasty import NASTY, is_fit_to_print
from tests.sources.manifests.test_findings import EXAMPLES
from uproxy.core.printable import printable

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
SERVED = f"{SERVICE}spec: {{type: NodePort, ports: [{{port: 80, nodePort: 30080}}]}}\n---\n" + (
    "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\n"
    "subsets: [{addresses: [{ip: 127.0.0.11}], ports: [{port: 9000}]}]\n"
)
WARNING = SERVED.replace("type: NodePort", "type: NodePort, nodeport: 3")
ERROR = SERVED.replace("kind: Endpoints", "kind: Endpoint")
LOAD_BALANCER = SERVED.replace("type: NodePort", "type: LoadBalancer").replace(
    ", nodePort: 30080", ""
)


class Check:
    """Calls the command with files in a directory."""

    def __init__(
        self,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.directory = directory
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.directory / f"{name}.yaml").write_text(text)

    def __call__(self, *words: str, stdin: str = "") -> Called:
        self._monkeypatch.chdir(self.directory)
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        return call(self._monkeypatch, self._capsys, "check", *words)


@pytest.fixture
def uproxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Check:
    return Check(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("text", "options", "code", "last"),
    [
        pytest.param(SERVED, [], 0, "1 file: 1 Endpoints, 1 Service. Nothing is wrong.", id="good"),
        pytest.param(
            WARNING, [], 0, "1 file: 1 Endpoints, 1 Service. 0 errors, 1 warning.", id="warning"
        ),
        pytest.param(
            WARNING,
            ["--strict"],
            1,
            "1 file: 1 Endpoints, 1 Service. 0 errors, 1 warning.",
            id="warning, strict",
        ),
        pytest.param(ERROR, [], 1, "1 file: 1 Service. 2 errors, 0 warnings.", id="error"),
        pytest.param("[", [], 1, "1 file: no Services. 1 error, 0 warnings.", id="not YAML"),
        pytest.param(
            "apiVersion: v1\nkind: ConfigMap\n",
            ["--strict"],
            0,
            "1 file: no Services; 1 object of kinds that uproxy does not use. Nothing is wrong, "
            "and nothing is served.",
            id="other kinds",
        ),
        pytest.param(
            LOAD_BALANCER, [], 1, "1 file: 1 Endpoints, 1 Service. 1 error, 0 warnings.", id="no lb"
        ),
        pytest.param(
            LOAD_BALANCER,
            ["--lb-pool", "192.0.2.0/28"],
            0,
            "1 file: 1 Endpoints, 1 Service. Nothing is wrong.",
            id="an address of a pool",
        ),
    ],
)
def test_exit_code_and_summary(
    uproxy: Check, text: str, options: list[str], code: int, last: str
) -> None:
    uproxy.write(web=text)
    done = uproxy("web.yaml", *options)
    assert (done.code, done.out.splitlines()[-1], done.err) == (code, last, "")


def test_findings_come_by_file_and_line(uproxy: Check) -> None:
    uproxy.write(a=WARNING, b=SERVED)
    (uproxy.directory / "empty").mkdir()
    done = uproxy(".", "empty")
    assert done.code == 1
    assert done.out.splitlines() == [
        "./a.yaml:4: warning: Service default/web: spec.nodeport: unknown field; "
        'did you mean "nodePort" in spec.ports?',
        "./b.yaml:1: error: metadata.name: Service default/web is already defined in ./a.yaml:1; "
        "remove one of them",
        "./b.yaml:6: error: metadata.name: Endpoints default/web is already defined in "
        "./a.yaml:6; remove one of them",
        "empty: warning: there is no *.yaml, *.yml or *.json file in it",
        "",
        "2 files: 1 Endpoints, 1 Service. 2 errors, 2 warnings.",
    ]


def test_standard_input(uproxy: Check) -> None:
    done = uproxy("-", stdin=WARNING)
    assert done.code == 0
    assert done.out.startswith("(stdin):4: warning: Service default/web: spec.nodeport: unknown")


def test_json(uproxy: Check) -> None:
    uproxy.write(web=WARNING)
    done = uproxy("-o", "json", "web.yaml")
    assert json.loads(done.out) == {
        "summary": {
            "files": 1,
            "objects": {"Endpoints": 1, "Service": 1},
            "otherObjects": 0,
            "errors": 0,
            "warnings": 1,
        },
        "findings": [
            {
                "severity": "warning",
                "file": "web.yaml",
                "line": 4,
                "object": "Service default/web",
                "field": "spec.nodeport",
                "reason": 'unknown field; did you mean "nodePort" in spec.ports?',
                "see": "",
            }
        ],
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param([], "give the PATH of a file or directory with manifests", id="no path"),
        pytest.param(["nope"], "nope: no such file or directory", id="no such file"),
        pytest.param(["/dev/null"], "a directory; for standard input, give -", id="a device"),
        pytest.param(["-o", "xml", "."], "'xml' is not one of", id="no such format"),
        pytest.param(["."], "", id="a file that cannot be read"),
    ],
)
def test_what_cannot_be_read_gives_2(uproxy: Check, words: list[str], message: str) -> None:
    (uproxy.directory / "web.yaml").symlink_to("/proc/self/mem")
    done = uproxy(*words)
    assert done.code == 2
    assert message in done.err
    if not message:
        assert "web.yaml: error: cannot be read: " in done.out


@pytest.mark.parametrize(
    ("options", "option"),
    [
        pytest.param([], "--healthz-bind-address", id="health"),
        pytest.param(
            ["--healthz-bind-address", "", "--metrics-bind-address", "127.0.0.1:10256"],
            "--metrics-bind-address",
            id="metrics",
        ),
        pytest.param(["--healthz-bind-address", "[::1]:10256"], "", id="the other family"),
        pytest.param(["--healthz-bind-address", ""], "", id="switched off"),
    ],
)
def test_a_port_of_uproxy_itself(uproxy: Check, options: list[str], option: str) -> None:
    uproxy.write(web=SERVED.replace("30080", "10256"))
    done = uproxy("web.yaml", "--nodeport-addresses", "0.0.0.0/0", *options)
    line = (
        "web.yaml:4: error: Service default/web: spec.ports[0]: "
        f"0.0.0.0:10256/TCP is a port of uproxy itself ({option})"
    )
    assert (line in done.out.splitlines()) == bool(option)
    assert done.code == bool(option)


def test_a_health_check_at_a_port_of_uproxy_itself(uproxy: Check) -> None:
    local = "type: LoadBalancer, externalTrafficPolicy: Local,\n  healthCheckNodePort: 10249"
    uproxy.write(web=SERVED.replace("type: NodePort", local))
    done = uproxy("web.yaml", "--nodeport-addresses", "0.0.0.0/0")
    line = (
        "web.yaml:5: error: Service default/web: spec.healthCheckNodePort: "
        "0.0.0.0:10249/TCP is a port of uproxy itself (--metrics-bind-address)"
    )
    assert line in done.out.splitlines()
    assert done.code == 1


def test_flags_and_the_file_decide_what_is_served(uproxy: Check) -> None:
    uproxy.write(web=SERVED.replace("type: NodePort", "externalIPs: [192.0.2.7]"))
    (uproxy.directory / "uproxy.conf").write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
        "hostnameOverride: here\n"
    )
    refused = uproxy("web.yaml", "--config", "uproxy.conf")
    assert "externalIP 192.0.2.7 is not an address of this node" in refused.out
    allowed = uproxy("web.yaml", "--external-ip-cidrs", "192.0.2.0/24")
    assert "192.0.2.7" not in allowed.out
    assert uproxy("--manifests", "web.yaml").out == uproxy("web.yaml").out


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("output", ["text", "json"])
def test_hostile_names_reach_no_terminal(uproxy: Check, output: str, text: str) -> None:
    if "\udc9b" in text:
        pytest.skip("no file in UTF-8 has one")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "annotations": {f"uproxy.dev/{text}": text}},
        "spec": {"ports": [{"port": 80, "name": text, "nodePort": 30080}], text: {}},
    }
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": text}},
        "addressType": "IPv4",
    }
    kind = {"apiVersion": "v1", "kind": text, "metadata": {"name": text, "namespace": text}}
    names = {**service, "metadata": {"name": text, "namespace": text}}
    for index, document in enumerate((service, slice_, kind, names)):
        (uproxy.directory / f"{index}.json").write_text(json.dumps(document))
    if "\0" not in text and "/" not in text:
        (uproxy.directory / f"{text}.yaml").write_text("[")
    done = uproxy(".", "-o", output)
    assert is_fit_to_print(done.out + done.err)
    assert done.code == 1
    if output == "text" and "\n" not in text:
        assert printable(text) in done.out


def test_the_examples_that_need_no_cluster_are_served(uproxy: Check) -> None:
    paths = [str(path) for path in sorted(EXAMPLES.glob("*.yaml"))]
    done = uproxy(*paths, "--hostname-override", "node-1")
    assert done.code == 0, done.out


@pytest.mark.parametrize("width", [40, 80, 120])
def test_lines_fit_on_the_screen(
    uproxy: Check, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    from uproxy.cli.commands import check as module

    uproxy.write(web=WARNING, b="# nothing")
    monkeypatch.setattr(module, "terminal", lambda: (width, str.upper))
    lines = uproxy(".").out.splitlines()
    assert all(len(line) <= width for line in lines)
    assert any("WARNING: " in line for line in lines)
