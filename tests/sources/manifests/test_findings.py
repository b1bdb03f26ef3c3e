"""What is odd in manifests, where it is, and when the log says so."""

from __future__ import annotations

import json
import logging
import textwrap
from pathlib import Path

import pytest

from tests.nasty import NASTY, is_fit_to_print
from tests.sources.manifests.test_source import following, manifest
from uproxy.core.report.findings import Severity, new_lines
from uproxy.sources.manifests.file import FileContent, read_manifest
from uproxy.sources.manifests.spelling import MOST
from uproxy.text.logs import formatter

EXAMPLES = Path(__file__).parents[3] / "examples"


def read(text: str, path: str = "x.yaml") -> FileContent:
    return read_manifest(path, textwrap.dedent(text).encode())


def texts(content: FileContent) -> list[str]:
    return [f"{each.where}: {each.severity}: {each.text}" for each in content.warnings]


IN_A_LIST = """\
    apiVersion: v1
    kind: List
    items:
    - apiVersion: v1
      kind: Service
      metadata: {name: web}
      spec:
        ports:
        - port: 80
          nodeport: 30080
    """
ROWS = [
    pytest.param(
        IN_A_LIST,
        [
            "x.yaml:10: warning: Service default/web: items[0].spec.ports[0].nodeport: "
            'unknown field; did you mean "nodePort"?'
        ],
        id="in a List",
    ),
    pytest.param(
        """\
        apiVersion: v1
        kind: Service
        metadata: {name: a, namespace: shop}
        spec:
          nodePort: 30080
        ---
        apiVersion: v1
        kind: Node
        metadata:
          name: n
          Labels: {}
        """,
        [
            "x.yaml:5: warning: Service shop/a: spec.nodePort: unknown field; "
            "it belongs in spec.ports",
            'x.yaml:11: warning: Node n: metadata.Labels: unknown field; did you mean "labels"?',
        ],
        id="in two documents",
    ),
    pytest.param(
        """\
        apiVersion: v1
        kind: Pod
        metadata: {name: a}
        spec:
          containers:
          - name: web
            imag: nginx
        """,
        [
            "x.yaml:7: warning: Pod default/a: spec.containers[0].imag: unknown field; "
            'did you mean "image"?'
        ],
        id="of a kind that is not used",
    ),
    pytest.param(
        "apiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: a}\n",
        [
            'x.yaml:2: warning: Deploymnet default/a: kind: "Deploymnet" is not a kind that '
            'Kubernetes has, so it is ignored; did you mean "Deployment"?'
        ],
        id="a kind",
    ),
    pytest.param(
        "apiVersion: v1\nkind: Service\nmetadat: {name: a}\n",
        [
            'x.yaml:3: warning: Service: metadat: unknown field; did you mean "metadata"?',
        ],
        id="beside an error",
    ),
    pytest.param(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata:\n  name: a\n"
        '  annotations: {a: b, uproxy.dev/drain: "true", uproxy.dev/reserved: 192.0.2.1}\n',
        [
            "x.yaml:5: warning: IPAddressPool default/a: metadata.annotations[uproxy.dev/reserved]"
            ': is not known, so it is ignored; did you mean "uproxy.dev/reserve"?'
        ],
        id="an annotation of a pool",
    ),
    pytest.param("# nothing\n", ["x.yaml: warning: there is no object in it"], id="a comment"),
    pytest.param("", ["x.yaml: warning: there is no object in it"], id="an empty file"),
    pytest.param("apiVersion: v1\nkind: ConfigMap\nx: y\n", [], id="a known kind"),
    pytest.param("a: [", [], id="an error is no warning"),
]


@pytest.mark.parametrize(("text", "expected"), ROWS)
def test_warnings(text: str, expected: list[str]) -> None:
    assert texts(read(text)) == expected


def test_a_misspelt_kind_that_would_be_served_is_an_error() -> None:
    """So that a typo in a file that was good before does not take its Services away."""
    (error,) = read("apiVersion: v1\nkind: Services\nmetadata: {name: a}\n").errors
    assert (error.where, error.field) == ("x.yaml:2", "kind")
    assert error.reason.endswith('; did you mean "Service"?')


def test_json_has_lines_too() -> None:
    document = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spc": {}}
    (found,) = read(json.dumps(document, indent=1), "x.json").warnings
    assert (found.line, found.field) == (7, "spc")


def test_of_many_warnings_the_first_are_kept() -> None:
    fields = "\n".join(f"x{number}: 1" for number in range(10 * MOST))
    found = read(f"apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\n{fields}").warnings
    assert [each.field for each in found] == [f"x{number}" for number in range(MOST)]


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_hostile_names_reach_no_terminal(text: str) -> None:
    if "\udc9b" in text:
        pytest.skip("no file in UTF-8 has one")
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": text, "namespace": text, text: 1},
        text: 1,
    }
    found = read(json.dumps(document, ensure_ascii=True), "x.json").warnings
    assert len(found) == 2

    for line in new_lines((), found):
        record = logging.LogRecord("x", logging.WARNING, "x", 1, "%s", (line,), None)
        assert is_fit_to_print(formatter("text").format(record))
        assert "\n" not in formatter("text").format(record)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_examples_have_no_warnings(path: Path) -> None:
    assert texts(read_manifest(str(path), path.read_bytes())) == []


# In the log of `uproxy run`


async def test_each_warning_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, empty = tmp_path / "a.yaml", tmp_path / "empty"
    empty.mkdir()
    path.write_text(manifest("a") + "spce: {}\n")
    async with following(tmp_path, empty) as sink:
        first = [
            f"{empty}: there is no *.yaml, *.yml or *.json file in it",
            f'{path}:5: Service default/a: spce: unknown field; did you mean "spec"?',
        ]
        assert caplog.messages == first
        path.write_text("# moved down\n" + manifest("a", "10.96.0.2") + "spce: {}\n")
        await sink.until(lambda: bool(sink.calls))
        assert caplog.messages == first
        sink.calls.clear()
        path.write_text(manifest("a", "10.96.0.3") + "spce: {}\nmetdata: {}\n")
        await sink.until(lambda: bool(sink.calls))
        assert caplog.messages == [
            *first,
            f'{path}:6: Service default/a: metdata: unknown field; did you mean "metadata"?',
        ]


def test_of_many_findings_few_are_logged() -> None:
    fields = "\n".join(f"x{number}: 1" for number in range(50))
    found = read(f"apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\n{fields}").warnings
    lines = list(new_lines((), found))
    assert len(lines) == 21
    assert lines[-1] == "and 30 more findings in manifests; uproxy check lists them"
    assert list(new_lines(found, found[::-1])) == []
    assert {each.severity for each in found} == {Severity.WARNING}
