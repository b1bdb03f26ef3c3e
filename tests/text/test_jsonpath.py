"""kubectl's JSONPath templates."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nasty import NASTY, is_fit_to_print
from uproxy.core.printable import printable
from uproxy.text.jsonpath import Template, TemplateError

DOCUMENT: dict[str, Any] = {
    "node": "here",
    "synced": True,
    "loadBalancer": None,
    "labels": {"app.kubernetes.io/name": "web", "no-backend": 7},
    "frontends": [
        {"service": "default/web", "state": "serving", "port": 80, "counts": {"flows": 12}},
        {"service": "default/odd", "state": "failed", "port": 81, "reason": "it's in use"},
        {"service": "prod/web", "state": "failed", "port": 8080},
    ],
}


@pytest.mark.parametrize(
    ("template", "printed"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("plain text", "plain text", id="text"),
        pytest.param("{.node}", "here", id="field"),
        pytest.param("{$.node} {@.synced}", "here true", id="root and current"),
        pytest.param("on {.node}: {.synced}!", "on here: true!", id="text around"),
        pytest.param("{.frontends[*].port}", "80 81 8080", id="all"),
        pytest.param("{.frontends[0].service}", "default/web", id="index"),
        pytest.param("{.frontends[-1].service}", "prod/web", id="from the end"),
        pytest.param("{.frontends[0:2].port}", "80 81", id="slice"),
        pytest.param("{.frontends[0,2].port}", "80 8080", id="union of indices"),
        pytest.param(
            "{.frontends[1]['service', 'state']}", "default/odd failed", id="union of names"
        ),
        pytest.param("{.frontends[9].port}{.nothing.at.all}", "", id="what is not there"),
        pytest.param("{..flows}", "12", id="recursive"),
        pytest.param("{.labels.no-backend}", "7", id="hyphen"),
        pytest.param(r"{.labels.app\.kubernetes\.io/name}", "web", id="dots in a name"),
        pytest.param("{.labels['app.kubernetes.io/name']}", "web", id="quoted name"),
        pytest.param('{.frontends[?(@.state=="failed")].port}', "81 8080", id="filter"),
        pytest.param("{.frontends[?(@.state == 'failed')].port}", "81 8080", id="blanks"),
        pytest.param("{.frontends[?(@.port > 80)].port}", "81 8080", id="numbers"),
        pytest.param("{.frontends[?(@.reason)].port}", "81", id="filter by existence"),
        pytest.param("{.frontends[0].counts}", '{"flows":12}', id="object"),
        pytest.param("{.frontends[0:1]}", None, id="object of a list"),
        pytest.param("{.loadBalancer}", "null", id="null"),
        pytest.param('{.node}{"\\n"}{"\\t"}{\'x\'}', "here\n\tx", id="quoted texts"),
        pytest.param('{.node "-" .synced}', "here-true", id="several in one pair of braces"),
        pytest.param('{"{}"}', "{}", id="braces in quotes"),
        pytest.param(
            '{range .frontends[*]}{.service}{"\\t"}{.state}{"\\n"}{end}',
            "default/web\tserving\ndefault/odd\tfailed\nprod/web\tfailed\n",
            id="range",
        ),
        pytest.param(
            "{range .frontends[0:2]}{$.node}:{.port} {end}.",
            "here:80 here:81 .",
            id="root in range",
        ),
        pytest.param(
            "{range .frontends[*]}{range .counts}{.flows};{end}{end}", "12;", id="nested ranges"
        ),
        pytest.param("{range .frontends[*]}{@.port},{end}", "80,81,8080,", id="current in range"),
    ],
)
def test_what_it_prints(template: str, printed: str | None) -> None:
    if printed is None:
        printed = '{"service":"default/web","state":"serving","port":80,"counts":{"flows":12}}'
    assert Template(template).render(DOCUMENT) == printed


def test_the_whole_document() -> None:
    assert Template("{.}").render({"a": [1]}) == Template("{$}").render({"a": [1]}) == '{"a":[1]}'


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{", "expected a path like .frontends[*].service, at the end"),
        ("{.a", "expected a path like .frontends[*].service, at the end"),
        ("{.a[}", "expected a path like .frontends[*].service, before '[}'"),
        ("{.a[?(@.x=]}", "unexpected token '=', in '.a[?(@.x=]'"),
        ("{end}", "{end} stands alone, after a {range ...}, before '}'"),
        ("{range .a[*]}x", "a {range ...} has no {end}, at the end"),
        ("{range .a[*] .b}x{end}", "a range has one path, as in {range .frontends[*]}, before"),
        ("{range .a}" * 30, "there are too many ranges in each other"),
        ("{[" + "[" * 5000 + "}", "expected a path"),
    ],
)
def test_what_it_does_not_understand(template: str, reason: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(template)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", [pytest.param(text, id=name) for name, text in NASTY.items() if name != "surrogate"]
)
def test_texts_of_the_document_are_fit_to_print(text: str) -> None:
    document = {"a": text, "b": [text], "c": {"d": text}}
    assert Template("{.a}").render(document) == printable(text)
    assert is_fit_to_print(Template("{.a}{.b}{.c}").render(document))


@given(st.text(alphabet="{}.[]*?()@$'\"\\ :,a0=range end", max_size=30))
def test_any_template_prints_something_or_is_refused(text: str) -> None:
    try:
        template = Template(text)
    except TemplateError:
        return
    try:
        printed = template.render(DOCUMENT)
    except TemplateError as error:
        printed = str(error)
    assert isinstance(printed, str)
