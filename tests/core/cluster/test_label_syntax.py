"""Label selectors as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uproxy.core.cluster.label_syntax import parse_selector

WEB = {"app": "web", "tier": "front", "canary": ""}
OTHERS = [{"app": "api", "tier": "front"}, {"tier": "back", "app.kubernetes.io/name": "db"}, {}]


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", [0, 1, 2, 3]),
        ("  ", [0, 1, 2, 3]),
        ("app=web", [0]),
        ("app==web", [0]),
        (" app = web ", [0]),
        ("app!=web", [1, 2, 3]),
        ("app", [0, 1]),
        ("!app", [2, 3]),
        ("! app", [2, 3]),
        ("canary=", [0]),
        ("app in (web)", [0]),
        ("app in (web,api)", [0, 1]),
        ("app in ( web , api )", [0, 1]),
        ("app notin (web, x)", [1, 2, 3]),
        ("tier=front,app in (api,db)", [1]),
        ("tier=front , !canary", [1]),
        ("app.kubernetes.io/name=db", [2]),
        ("in in (a)", []),
        ("notin", []),
    ],
)
def test_what_is_selected(text: str, selected: list[int]) -> None:
    selector = parse_selector(text)
    found = [number for number, labels in enumerate([WEB, *OTHERS]) if selector.matches(labels)]
    assert found == selected


@pytest.mark.parametrize(
    "text",
    [
        "=web",
        "app=web,",
        ",",
        "app is web",
        "app in web",
        "app in (a",
        "a=b=c",
        "app>3",
        "a b",
        "!",
    ],
)
def test_it_is_not_a_selector(text: str) -> None:
    with pytest.raises(ValueError, match="is not a label selector; give one like app=web"):
        parse_selector(text)


@given(st.text(alphabet="ab,=!() in\t", max_size=40))
def test_any_text_has_a_meaning_or_is_refused(text: str) -> None:
    try:
        selector = parse_selector(text)
    except ValueError:
        return
    assert selector.matches(WEB) in (True, False)
