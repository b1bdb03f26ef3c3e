"""How people name Services, and what they are told if they contradict themselves."""

from __future__ import annotations

import click
import msgspec
import pytest

from tests.cli import views
from tests.cli.test_status_client import answering
from uproxy.cli.selection import NotFound, require, select
from uproxy.core.report.status_format import Filter

CONTEXT = click.Context(click.Command("status"))


@pytest.mark.parametrize(
    ("text", "namespace", "wanted"),
    [
        (None, "", Filter()),
        (None, "prod", Filter(namespace="prod")),
        ("web", "", Filter(service="web")),
        ("web", "prod", Filter("prod", "web")),
        ("prod/web", "", Filter("prod", "web")),
        ("prod/web", "prod", Filter("prod", "web")),
        ("svc/web", "", Filter(service="web")),
        ("service/web", "prod", Filter("prod", "web")),
        ("services/web", "svc", Filter("svc", "web")),
    ],
)
def test_what_is_selected(text: str | None, namespace: str, wanted: Filter) -> None:
    assert select(CONTEXT, text, namespace) == wanted


def test_further_fields() -> None:
    wanted = select(CONTEXT, "svc/web", "", everywhere=True, labels="a=b", state="failed")
    assert wanted == Filter(service="web", labels="a=b", state="failed")


@pytest.mark.parametrize(
    ("text", "namespace", "everywhere", "message"),
    [
        ("a/b/c", "", False, '"a/b/c" is not the name of a Service; give one like default/web'),
        ("", "", False, '"" is not the name of a Service; give one like default/web'),
        ("svc/a/b", "", False, '"svc/a/b" is not the name of a Service'),
        ("a/web", "b", False, "a/web and -n b name different namespaces; leave one out"),
        (None, "b", True, "-A and -n contradict each other; leave one out"),
    ],
)
def test_contradictions(text: str | None, namespace: str, everywhere: bool, message: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        select(CONTEXT, text, namespace, everywhere=everywhere)
    assert caught.value.message.startswith(message)


def test_what_is_not_there_is_asked_for_once_more() -> None:
    """Only if the answer is empty, as the second question is for the status of everything."""
    everything = views.status(frontends=[views.frontend("default/web")])
    asked: list[str] = []
    with answering(200, msgspec.json.encode(everything), asked) as url:
        require(url, Filter("default", "web"), everything)
        require(url, Filter(), views.status())
        assert asked == []
        with pytest.raises(NotFound, match="no Service is in the namespace prod; there are"):
            require(url, Filter("prod"), views.status())
        require(url, Filter("default", state="failed"), views.status())
    assert asked == ["/api/v1/routes"] * 2


def test_it_exits_with_1() -> None:
    assert NotFound("no \x1b").exit_code == 1
    assert NotFound("no \x1b").message == "no \\x1b"
