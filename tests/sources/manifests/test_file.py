"""What the text of a manifest means, and the errors about one that is wrong."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uproxy.core.cluster.objects import Endpoints, EndpointSlice, Node, ObjectName, Service
from uproxy.sources.manifests.file import MAX_FILE, FileContent, Key, read_manifest
from uproxy.text.document import Document, Malformed, decode_text
from uproxy.text.json_text import json_documents
from uproxy.text.yaml_scalars import plain_value
from uproxy.text.yaml_text import yaml_documents

EXAMPLES = Path(__file__).parents[3] / "examples"
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"


def read(text: str, path: str = "x.yaml") -> FileContent:
    return read_manifest(path, textwrap.dedent(text).encode())


def keys(reading: FileContent) -> list[str]:
    return [str(key) for key in reading.objects]


def errors(reading: FileContent) -> list[str]:
    return [f"{each.where}: {each.field}: {each.reason}" for each in reading.errors]


def yaml_data(text: str) -> list[Any]:
    """Data of each document; for a malformed one, why."""
    return [each.data if isinstance(each, Document) else str(each) for each in yaml_documents(text)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("web", "web", id="text"),
        pytest.param("", None, id="nothing"),
        pytest.param("~", None, id="tilde"),
        pytest.param("Null", None, id="null"),
        pytest.param("yes", True, id="yes"),
        pytest.param("Off", False, id="off"),
        pytest.param("y", "y", id="y-is-text"),
        pytest.param("80", 80, id="integer"),
        pytest.param("-1_000", -1000, id="negative-with-underscore"),
        pytest.param("0x1F", 31, id="hexadecimal"),
        pytest.param("010", 8, id="octal"),
        pytest.param("0o10", 8, id="octal-of-yaml-1.2"),
        pytest.param("0b11", 3, id="binary"),
        pytest.param("1.5", 1.5, id="fraction"),
        pytest.param("1e3", 1000.0, id="exponent"),
        pytest.param(".5", 0.5, id="no-digit-before-the-point"),
        pytest.param("-", "-", id="minus"),
        pytest.param(".", ".", id="point"),
        pytest.param("0x", "0x", id="no-hexadecimal-digit"),
        pytest.param("0x_", "0x_", id="only-an-underscore"),
        pytest.param("10.0.0.1", "10.0.0.1", id="ipv4"),
        pytest.param("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8", id="ipv6-is-not-base-60"),
        pytest.param("2026-11-21", "2026-11-21", id="date"),
        pytest.param("2026-11-21T00:00:00Z", "2026-11-21T00:00:00Z", id="timestamp"),
        pytest.param("9" * 5000, "9" * 5000, id="more-digits-than-python-converts"),
    ],
)
def test_plain_yaml_values(text: str, value: object) -> None:
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        pytest.param("", [], id="empty"),
        pytest.param("# only a comment\n", [], id="comment"),
        pytest.param("---\n---\na", [None, "a"], id="empty-document"),
        pytest.param('"1": "80"', [{"1": "80"}], id="quoted-stays-text"),
        pytest.param("1: a\ntrue: b", [{"1": "a", "true": "b"}], id="keys-become-text"),
        pytest.param("a: !!str 1\nb: !!int '2'", [{"a": "1", "b": 2}], id="tags"),
        pytest.param("a: |\n  x\n  y\n", [{"a": "x\ny\n"}], id="block-scalar"),
        pytest.param("%YAML 1.1\n---\na: b", [{"a": "b"}], id="directive"),
        pytest.param("a\n...\n---\nb\n", ["a", "b"], id="document-end"),
        pytest.param("\ufeffa: b", [{"a": "b"}], id="byte-order-mark"),
        pytest.param("- &x {q: 1}\n- *x", [[{"q": 1}, {"q": 1}]], id="alias"),
        pytest.param(
            "- &x {q: 1}\n- {<<: *x, q: 2, r: 3}", [[{"q": 1}, {"q": 2, "r": 3}]], id="merge"
        ),
        pytest.param("<<: [{a: 1}, {a: 2, b: 2}]", [{"a": 1, "b": 2}], id="merge-of-two"),
        pytest.param('"<<": {a: 1}', [{"<<": {"a": 1}}], id="quoted-merge-key-is-a-key"),
    ],
)
def test_yaml(text: str, data: list[Any]) -> None:
    assert yaml_data(text) == data


def _laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        pytest.param("a: 1\nb: 2\na: 3", 3, 1, 'the key "a" is given twice', id="duplicate-key"),
        pytest.param("a: b: c", 1, 5, "mapping values are not allowed", id="syntax"),
        pytest.param("a: [1,\n  2\n", 3, 1, "while parsing a flow sequence", id="unclosed"),
        pytest.param("a: x\x01", 1, 5, "control characters are not allowed", id="control"),
        pytest.param("a:\n\tb: c", 2, 1, "cannot start any token", id="tab"),
        pytest.param("&a [*a]", 1, 5, "*a contains itself", id="recursive-alias"),
        pytest.param("a: *b", 1, 4, "*b has no anchor", id="unknown-alias"),
        pytest.param(_laughs(), 5, 45, "more than 100000 values", id="billion-laughs"),
        pytest.param("[" * 100_000, 1, 201, "more than 200 levels deep", id="brackets"),
        pytest.param("- " * 5000, 1, 401, "more than 200 levels deep", id="dashes"),
        pytest.param("a: !!python/object:os.system x", 1, 4, "is not supported", id="tag"),
        pytest.param("? [a]\n: b", 1, 3, "a key must be text", id="list-as-key"),
        pytest.param("~: b", 1, 1, "a key must be text", id="null-as-key"),
        pytest.param("<<: x", 1, 0, "needs a mapping", id="merge-of-text"),
        pytest.param("<<: [x]", 1, 0, "needs a mapping", id="merge-of-list-of-text"),
    ],
)
def test_malformed_yaml(text: str, line: int, column: int, reason: str) -> None:
    [found] = yaml_documents(text)
    assert isinstance(found, Malformed)
    assert (found.line, found.column) == (line, column)
    assert reason in found.reason


def test_a_malformed_document_does_not_hide_the_others() -> None:
    first, second, third = yaml_data("a: 1\n---\nb: b: b\n---\nc: 3\n")
    assert (first, third) == ({"a": 1}, {"c": 3})
    assert second.startswith("line 3, column 5: not YAML")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        pytest.param('{"a": 1,\n "a": 2}', 2, 'the key "a" is given twice', id="duplicate-key"),
        pytest.param('[1,\n {"b": NaN}]', 2, "NaN is not JSON", id="nan"),
        # "expecting value"; from Python 3.13 on, "illegal trailing comma before end of array".
        pytest.param("[\n1,]", 2, "not JSON: ", id="comma"),
        pytest.param("{}\n{} x", 2, "expecting value", id="garbage-after-documents"),
        pytest.param("[" * 100_000, 1, "nested too deep", id="brackets"),
        pytest.param('["\\ud83d"]', 1, "surrogate", id="half-a-character"),
    ],
)
def test_malformed_json(text: str, line: int, reason: str) -> None:
    *_, found = json_documents(text)
    assert isinstance(found, Malformed)
    assert found.line == line
    assert reason in found.reason


def test_malformed_json_says_the_column() -> None:
    [found] = json_documents('{"a": 1,\n  b}')
    assert str(found) == (
        "line 2, column 3: not JSON: expecting property name enclosed in double quotes"
    )


def test_json_documents_may_follow_each_other() -> None:
    documents = list(json_documents('{"a": "\\ud83d\\ude00"}\n\n[1]'))
    assert [each.data for each in documents if isinstance(each, Document)] == [
        {"a": "\U0001f600"},
        [1],
    ]


@pytest.mark.parametrize(
    ("raw", "line", "column"),
    [
        pytest.param(b"\xff", 1, 1, id="first-byte"),
        pytest.param(b"a: b\nc: \xe9\n", 2, 4, id="latin-1"),
        pytest.param("a: b".encode("utf-16"), 1, 1, id="utf-16"),
    ],
)
def test_not_utf8(raw: bytes, line: int, column: int) -> None:
    with pytest.raises(Malformed, match="not UTF-8") as caught:
        decode_text(raw)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(SERVICE, ["Service default/web"], id="service"),
        pytest.param(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n",
            ["Service shop/a"],
            id="namespace",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}", ["Node node-1"], id="node"
        ),
        pytest.param(
            "apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}",
            ["Endpoints default/a"],
            id="endpoints",
        ),
        pytest.param(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
            "metadata: {name: a}\naddressType: IPv4",
            ["EndpointSlice default/a"],
            id="slice",
        ),
        pytest.param(
            "apiVersion: v1\nkind: List\nitems:\n"
            "- {apiVersion: v1, kind: Service, metadata: {name: a}}\n"
            "- {apiVersion: v1, kind: Node, metadata: {name: b}}\n",
            ["Service default/a", "Node b"],
            id="list",
        ),
        pytest.param(
            "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n",
            ["Service default/a"],
            id="typed-list-whose-items-have-no-kind",
        ),
        pytest.param(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSliceList\nitems:\n"
            "- {metadata: {name: a}, addressType: IPv4}\n",
            ["EndpointSlice default/a"],
            id="list-of-slices",
        ),
        pytest.param("apiVersion: v1\nkind: List\nitems: null", [], id="list-without-items"),
        pytest.param("---\n\n---\n# nothing\n", [], id="empty-documents"),
        pytest.param("", [], id="empty-file"),
    ],
)
def test_objects(text: str, expected: list[str]) -> None:
    reading = read(text)
    assert errors(reading) == []
    assert keys(reading) == expected


def test_other_kinds_are_ignored_and_counted() -> None:
    reading = read(
        SERVICE
        + """\
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: other}
"""
    )
    assert keys(reading) == ["Service default/web"]
    assert (reading.ignored, errors(reading)) == (2, [])


def test_json_by_suffix() -> None:
    text = '{"apiVersion": "v1",\t"kind": "Service",\n\t"metadata": {"name": "a"}}'
    assert keys(read(text, "x.json")) == ["Service default/a"]
    assert errors(read("a: b", "x.json")) == ["x.json:1: : not JSON: expecting value (column 1)"]


def test_timestamps_stay_text() -> None:
    reading = read(
        SERVICE.replace("name: web", "name: web, creationTimestamp: 2026-11-21T00:00:00Z")
    )
    [located] = reading.objects.values()
    assert located.obj.metadata.creation_timestamp == "2026-11-21T00:00:00Z"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        pytest.param(
            "spec: {type: Nodeport}",
            'x.yaml:4: spec.type: "Nodeport" is not ClusterIP, ExternalName, LoadBalancer or '
            'NodePort; did you mean "NodePort"?',
            id="choice",
        ),
        pytest.param(
            "spec:\n  ports:\n  - port: 80\n  - port: '81'\n",
            'x.yaml:7: spec.ports[1].port: expected a whole number, found "81"; '
            "write it without quotes",
            id="number-in-quotes",
        ),
        pytest.param(
            "spec:\n  ports:\n  - port: 80\n  -\n    port: 70000\n",
            "x.yaml:8: spec.ports[1].port: expected a whole number <= 65535, found 70000",
            id="range",
        ),
        pytest.param(
            "spec:\n  ports:\n  - name: http\n",
            "x.yaml:6: spec.ports[0].port: is missing; it is required",
            id="missing",
        ),
        pytest.param(
            "spec:\n  externalIPs: 192.0.2.1",
            'x.yaml:5: spec.externalIPs: expected a list, found "192.0.2.1"',
            id="list",
        ),
        pytest.param(
            "spec:\n  selector:\n    app: web\n    canary: yes\n",
            "x.yaml:7: spec.selector.canary: expected text, found true; put it in quotes",
            id="value-of-a-free-mapping",
        ),
        pytest.param(
            "spec:\n  selector:\n    example.com/x: 1\n",
            "x.yaml:6: spec.selector[example.com/x]: expected text, found 1; put it in quotes",
            id="key-with-dots",
        ),
        pytest.param("spec: [a]", "x.yaml:4: spec: expected a mapping, found a list", id="mapping"),
    ],
)
def test_a_field_that_is_wrong(fields: str, error: str) -> None:
    assert errors(read(SERVICE + fields)) == [error]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param("x", "x.yaml:1: : expected an object, found text", id="text"),
        pytest.param(
            "kind: Service", "x.yaml:1: apiVersion: a string is required", id="no-version"
        ),
        pytest.param("\napiVersion: v1", "x.yaml:2: kind: a string is required", id="no-kind"),
        pytest.param(
            "apiVersion: v1\nkind: Service\nmetadata: {namespace: a}\n",
            "x.yaml:3: metadata.name: is missing; it is required",
            id="no-name",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: My Web\n",
            'x.yaml:4: metadata.name: "My Web" is not a name of lower-case letters, digits, '
            '"-" and "."',
            id="name",
        ),
        pytest.param(
            "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: a}\n",
            "x.yaml:1: apiVersion: EndpointSlice is read from discovery.k8s.io/v1 only",
            id="version",
        ),
        pytest.param(
            SERVICE + "---\n" + SERVICE,
            "x.yaml:7: metadata.name: Service default/web is already defined in line 1; "
            "remove one of them",
            id="twice",
        ),
        pytest.param(
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n"
            "  metadata: {name: 1}\n",
            "x.yaml:6: items[0].metadata.name: expected text, found 1; put it in quotes",
            id="item-of-a-list",
        ),
    ],
)
def test_an_object_that_is_wrong(text: str, error: str) -> None:
    assert errors(read(text)) == [error]


def test_field_lines_in_json() -> None:
    text = """{
      "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {}},
      "spec": {
        "ports": [{"port": 80, "name": "\\"]"},
          {"port": 0}]}
    }"""
    assert errors(read(text, "x.json")) == [
        "x.json:5: spec.ports[1].port: expected a whole number >= 1, found 0"
    ]


def test_the_rest_of_a_file_is_read() -> None:
    reading = read(f"{SERVICE}---\n: : :\n---\n{SERVICE.replace('web', 'b')}spec: 1\n---\n[]\n")
    assert keys(reading) == ["Service default/web"]
    assert [each.where for each in reading.errors] == ["x.yaml:5", "x.yaml:10", "x.yaml:12"]


def test_a_text_that_is_no_manifest_has_a_bounded_number_of_errors() -> None:
    reading = read("---\nx\n" * 1000)
    assert len(reading.errors) == 101
    assert reading.errors[-1].reason == "900 more errors in this file"


def test_a_huge_file() -> None:
    reading = read_manifest("x.yaml", b"#" * (MAX_FILE + 1))
    assert errors(reading) == ["x.yaml: : larger than 64 MiB; split it into several files"]


def test_a_path_that_is_no_text() -> None:
    assert read("x", "a\udcff\n.yaml").errors[0].where == "a\\udcff\\n.yaml:1"


def test_keys_tell_kinds_apart() -> None:
    name = ObjectName("default", "a")
    assert len({Key(kind, name) for kind in (Service, Endpoints, EndpointSlice, Node)}) == 4


_WORDS = """&a *a <<: [ ] { } : , " ' | ? !x # ... 0x 1_ null %YAML items: metadata: \\ud800"""
_FRAGMENTS = st.sampled_from(
    [
        *(f"{word} " for word in _WORDS.split()),
        *("- ", "  ", "\n", "\n---\n", "\t", "\r", "name: a", "kind: Service", "kind: List"),
        *("apiVersion: v1", '"apiVersion": "v1",', '"kind": "List",'),
    ]
)


@given(
    st.lists(_FRAGMENTS | st.text(max_size=3)).map("".join), st.sampled_from(["x.yaml", "x.json"])
)
def test_no_text_raises(text: str, path: str) -> None:
    check_is_sound(path, read_manifest(path, text.encode(errors="ignore")))


@given(st.binary(max_size=50))
def test_no_bytes_raise(raw: bytes) -> None:
    for path in ("x.yaml", "x.json"):
        check_is_sound(path, read_manifest(path, raw))


def check_is_sound(path: str, content: FileContent) -> None:
    """Each object is where its key says, and each error is one line that names the file."""
    for key, located in content.objects.items():
        assert (key.kind, key.name) == (type(located.obj), located.obj.key)
    for each in content.errors:
        assert each.where.split(":")[0] == path
        assert each.reason
        assert f"{each.field}{each.reason}".isprintable()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples(path: Path) -> None:
    reading = read_manifest(path.name, path.read_bytes())
    assert errors(reading) == []
    assert reading.objects
    assert reading.ignored == 0


def test_there_are_examples() -> None:
    assert len(list(EXAMPLES.glob("*.yaml"))) >= 10
