"""Lists and watches as plain functions: lines, events, which version counts, what errors mean."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uproxy.core.cluster.objects import ObjectName, Service
from uproxy.sources.kubernetes.mirror import Deleted, Mirror
from uproxy.sources.kubernetes.verdict import Verdict, judge
from uproxy.sources.kubernetes.watch_format import (
    Event,
    Failure,
    LineBuffer,
    MalformedAnswer,
    read_event,
    read_failure,
    read_page,
    retry_after,
)

WEB = ObjectName("default", "web")


@pytest.mark.parametrize(
    ("chunks", "lines", "cut"),
    [
        pytest.param([b"a\nb\n"], [b"a", b"b"], False, id="two lines"),
        pytest.param([b"a", b"b\nc", b"\n"], [b"ab", b"c"], False, id="a line in parts"),
        pytest.param([b"a\nb"], [b"a"], True, id="cut"),
        pytest.param([b"a\r\n\n \nb\n"], [b"a\r", b"b"], False, id="empty lines"),
        pytest.param([b"a", b"\n"], [b"a"], False, id="line feed alone"),
        pytest.param([b""], [], False, id="nothing"),
    ],
)
def test_lines(chunks: list[bytes], lines: list[bytes], cut: bool) -> None:
    splitter = LineBuffer()
    assert [line for chunk in chunks for line in splitter.feed(chunk)] == lines
    assert bool(splitter.rest) == cut


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([b"x" * 6] * 2, id="without an end"),
        pytest.param([b"ok\n" + b"x" * 6, b"x" * 5 + b"\n"], id="with an end"),
        pytest.param([b"x" * 11 + b"\nok\n"], id="at once"),
        pytest.param([b"ok\n", b"x" * 11], id="after another one"),
    ],
)
def test_lines_that_are_too_long(chunks: list[bytes]) -> None:
    splitter = LineBuffer(longest=10)
    *before, last = chunks
    for chunk in before:
        splitter.feed(chunk)
    with pytest.raises(MalformedAnswer, match="a line of more than"):
        splitter.feed(last)


def test_lines_are_bounded_one_by_one() -> None:
    splitter = LineBuffer(longest=10)
    for _ in range(100):
        assert list(splitter.feed(b"x" * 5)) == []
        assert list(splitter.feed(b"x" * 5 + b"\nx" * 3 + b"\n")) == [b"x" * 10, *[b"x"] * 3]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"Retry-After": "7"}, 7.0, id="seconds"),
        pytest.param({"Retry-After": "Thu, 01 Jan 1970 00:02:00 GMT"}, 20.0, id="date"),
        pytest.param({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, 0.0, id="past"),
        pytest.param({"Retry-After": "Thursday, 01-Jan-70 00:02:00 GMT"}, 20.0, id="RFC 850"),
        pytest.param(
            {
                "Retry-After": "Fri, 02 Jan 1970 00:00:05 GMT",
                "Date": "Fri, 02 Jan 1970 00:00:00 GMT",
            },
            5.0,
            id="date by the server's clock",
        ),
        pytest.param(
            {"Retry-After": "Thu, 01 Jan 1970 00:02:00 GMT", "Date": "x"}, 20.0, id="no date"
        ),
        pytest.param({"Retry-After": "soon"}, None, id="words"),
        pytest.param({"Retry-After": "-5"}, None, id="negative"),
        pytest.param({"Retry-After": "9" * 5000}, math.inf, id="many digits"),
        pytest.param({"Retry-After": "Thu, 01 Jan 99999 00:00:00 GMT"}, None, id="far away"),
        pytest.param({"Retry-After": "\N{ARABIC-INDIC DIGIT SEVEN}"}, None, id="other digits"),
    ],
)
def test_retry_after_of_responses(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=100.0) == seconds


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_in_these_headers_raises(text: str, date: str) -> None:
    wait = judge(
        Failure(code=429), retry_after=retry_after({"Retry-After": text, "Date": date}, 0.0)
    ).retry_after
    assert wait is None or 0 <= wait <= 300


@pytest.mark.parametrize(
    ("line", "event"),
    [
        pytest.param(b'{"type":"ADDED","object":{"a":1}}', ("ADDED", b'{"a":1}'), id="event"),
        pytest.param(b'{"object":{},"type":"X","more":1}', ("X", b"{}"), id="any order"),
        pytest.param(b'{"kind":"ServiceList","items":[]}', None, id="list"),
    ],
)
def test_events(line: bytes, event: tuple[str, bytes] | None) -> None:
    found = read_event(line)
    assert (found and (found.type, bytes(found.obj))) == event
    assert found is None or isinstance(found, Event)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"type":"ADDED","obj', id="cut"),
        pytest.param(b"[]", id="list"),
        pytest.param(b'{"type":"ADDED"}', id="no object"),
        pytest.param(b'{"object":{}}', id="no type"),
        pytest.param(b"<html>", id="not JSON"),
        pytest.param(b'{"type":"\xff","object":{}}', id="not UTF-8"),
        pytest.param(
            b'{"type":"X","object":' + b"[" * 99999 + b"]" * 99999 + b"}", id="nested too deep"
        ),
    ],
)
def test_lines_that_are_no_events(line: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        read_event(line)


def test_pages() -> None:
    page = read_page(b'{"metadata":{"resourceVersion":"5","continue":"x"},"items":[{},{}]}')
    assert (page.version, page.next, len(page.items)) == ("5", "x", 2)
    assert read_page(b'{"metadata":{},"items":null}').items == ()
    with pytest.raises(MalformedAnswer):
        read_page(b"<html>")


def test_pages_that_take_too_much_memory() -> None:
    head = b'{"metadata":{"resourceVersion":"1"},"items":['
    many = head + b"1," * 8_000_001 + b"1]}"
    with pytest.raises(MalformedAnswer, match="more than 8,000,000 values"):
        read_page(many)
    large = head + b'{},{"x":"' + b"x" * 16 * 1024 * 1024 + b'"}]}'
    with pytest.raises(MalformedAnswer, match="an object of more than 16 MiB"):
        read_page(large)


def test_failures() -> None:
    body = b'{"kind":"Status","message":"slow down","code":429,"details":{"retryAfterSeconds":7}}'
    failure = read_failure(body)
    assert (str(failure), failure.retry_after) == ("429: slow down", 7.0)
    assert str(read_failure(b"<html>", 502)) == "502"
    assert read_failure(b'{"message":"x"}', 503).code == 503


@pytest.mark.parametrize(
    ("failure", "initial", "verdict"),
    [
        pytest.param(Failure(code=410), False, Verdict(relist=True, expected=True), id="410"),
        pytest.param(
            Failure(code=410), True, Verdict(relist=True, expected=True), id="410 at once"
        ),
        pytest.param(Failure(code=401), True, Verdict(), id="401"),
        pytest.param(Failure(code=403), True, Verdict(), id="403"),
        pytest.param(Failure(code=429), True, Verdict(), id="429"),
        pytest.param(Failure(code=503), True, Verdict(), id="503"),
        pytest.param(Failure(code=504), False, Verdict(relist=True), id="a future version"),
        pytest.param(Failure(code=500), False, Verdict(relist=True), id="500 in a watch"),
        pytest.param(
            Failure(code=500),
            True,
            Verdict(relist=True, expected=True, no_watch_list=True),
            id="500 to a streamed list: 1.36 without RequestWatchProgress",
        ),
        pytest.param(
            Failure(code=422),
            True,
            Verdict(relist=True, expected=True, no_watch_list=True),
            id="422 to a streamed list: before 1.27",
        ),
    ],
)
def test_verdicts(failure: Failure, initial: bool, verdict: Verdict) -> None:
    assert judge(failure, initial=initial) == verdict


def test_waits_that_the_server_asks_for() -> None:
    assert judge(Failure(code=429), retry_after=3.0).retry_after == 3.0
    assert judge(Failure(code=429), retry_after=1e9).retry_after == 300.0
    failure = read_failure(b'{"code":503,"details":{"retryAfterSeconds":2}}')
    assert judge(failure).retry_after == 2.0


def raw(version: str, name: str = "web", **spec: Any) -> msgspec.Raw:
    metadata = {"name": name, "namespace": "default", "resourceVersion": version}
    return msgspec.Raw(msgspec.json.encode({"metadata": metadata, "spec": spec}))


def mirror(*listed: msgspec.Raw, version: str = "10") -> Mirror[Service]:
    found = Mirror(Service)
    found.begin_list()
    for each in listed:
        found.add_listed(each)
    found.finish_list(version)
    return found


def test_versions_only_go_forward() -> None:
    web = mirror()
    assert web.apply_change(raw("12")) is not None
    assert web.apply_change(raw("12")) is None, "twice"
    assert web.apply_change(raw("11")) is None, "an older one"
    assert web.version == "12"
    assert web.apply_change(raw("13")) is not None
    assert web.apply_deletion(raw("11")) is None, "an old deletion of an object that was made anew"
    assert web.apply_deletion(raw("14")) == Deleted(WEB)
    assert web.apply_deletion(raw("14")) is None
    assert web.apply_change(raw("13")) is None, "from before it was deleted"
    assert web.apply_change(raw("15")) is not None
    web.apply_bookmark(raw("9"))
    assert web.version == "15"
    web.apply_bookmark(raw("20"))
    assert web.version == "20"


def test_the_version_of_one_object_says_nothing_about_another() -> None:
    web = mirror(raw("5"))
    assert web.apply_change(raw("12")) is not None
    assert web.apply_change(raw("11", name="other")) is not None


def test_versions_that_are_no_numbers_are_only_told_apart() -> None:
    web = mirror(raw("b"), version="x")
    assert web.apply_change(raw("b")) is None
    assert web.apply_change(raw("a")) is not None
    assert web.version == "a"


def test_a_list_knows_what_has_changed() -> None:
    web = mirror(raw("5"), raw("6", name="other"))
    web.begin_list()
    web.add_listed(raw("5"))
    web.add_listed(raw("11", name="new"))
    objects, changed = web.finish_list("12")
    assert {each.key.name for each in objects} == {"web", "new"}
    assert [each.key.name for each in changed] == ["new"]
    assert web.version == "12"


def test_a_list_replaces_what_was_known() -> None:
    # After a restore from a backup its versions are lower than before.
    web = mirror(raw("50"), version="60")
    web.begin_list()
    web.add_listed(raw("20", type="NodePort"))
    web.finish_list("30")
    assert web.version == "30"
    assert web.apply_change(raw("31")) is not None


def test_deleted_while_the_list_was_on_its_way() -> None:
    web = Mirror(Service)
    web.begin_list()
    web.add_listed(raw("5"))
    web.drop_listed(raw("6"))
    assert web.finish_list("7").objects == []


def test_unusable_objects() -> None:
    web = mirror(raw("5"), raw("6", name="bad", type="Nonsense"))
    [error] = web.errors
    assert error.where == "Service default/bad"
    assert error.field == "spec.type"
    assert web.apply_change(raw("11", type="Nonsense")) is None
    assert web.version == "11", "it is not asked for again"
    assert [each.where for each in web.errors] == ["Service default/bad", "Service default/web"]
    web.begin_list()
    web.add_listed(raw("11", type="Nonsense"))
    objects, changed = web.finish_list("12")
    assert [each.metadata.resource_version for each in objects] == ["5"], "the last good one"
    assert changed == []
    assert web.apply_deletion(raw("13", type="Nonsense")) == Deleted(WEB)
    assert web.errors == ()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"{}", id="no metadata"),
        pytest.param(b'{"metadata":{}}', id="no name"),
        pytest.param(b'{"metadata":{"name":"\xff"}}', id="not UTF-8"),
        pytest.param(b'{"spec":' * 99999 + b"1" + b"}" * 99999, id="nested too deep"),
    ],
)
def test_objects_without_a_name(text: bytes) -> None:
    web = mirror(raw("5"))
    for take in (web.apply_change, web.apply_deletion):
        with pytest.raises(MalformedAnswer):
            take(msgspec.Raw(text))
    assert not any(web.errors), "all is listed again, and that says what is there"
    web.begin_list()
    web.add_listed(msgspec.Raw(text))
    assert web.finish_list("12").objects == []
    assert [each.where for each in web.errors] == ["Service (without a name)"]
    assert str(read_failure(text, 500)) == "500"


def test_tombstones_are_bounded() -> None:
    web = mirror()
    for number in range(11_000):
        web.apply_change(raw(str(100 + number), name=f"s{number}"))
        web.apply_deletion(raw(str(101 + number), name=f"s{number}"))
    assert len(web._tombstones) == 10_000
