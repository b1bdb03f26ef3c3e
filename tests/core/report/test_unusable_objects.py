"""20,000 objects that cannot be used: few are shown, the rest is counted, and nothing is compared
with everything."""

from __future__ import annotations

import msgspec

from tests.core.routing.test_frontend_requests import calls_of
from uproxy.core.cluster.objects import Service
from uproxy.core.report.status import ObjectStatus
from uproxy.core.report.unusable_objects import MOST, bounded, log_lines
from uproxy.sources.kubernetes.mirror import Mirror


def errors(number: int) -> tuple[ObjectStatus, ...]:
    return tuple(ObjectStatus(where=f"Service a/{i}", field="", reason="") for i in range(number))


def bad(index: int, version: int) -> msgspec.Raw:
    metadata = {"name": f"s{index:05}", "namespace": "a", "resourceVersion": str(version)}
    return msgspec.Raw(msgspec.json.encode({"metadata": metadata, "spec": {"type": "Nonsense"}}))


def test_few_are_shown_as_they_are() -> None:
    for number in (0, 1, MOST, MOST + 1):
        given = errors(number)
        assert bounded(given, "services") is given


def test_of_many_the_rest_is_counted() -> None:
    shown = bounded(errors(20_000), "manifests")
    assert len(shown) == MOST + 1
    assert shown[-1] == ObjectStatus(
        where="manifests", field="", reason="19,500 more cannot be used"
    )


def test_of_many_new_ones_few_are_logged() -> None:
    lines = list(log_lines((), errors(500)))
    assert len(lines) == 21
    assert lines[-1] == "and 480 more objects that cannot be used; uproxy status lists them"
    assert list(log_lines(errors(500), errors(501))) == ["Service a/500: "]


def test_a_changed_count_is_not_logged() -> None:
    before, after = bounded(errors(20_000), "x"), bounded(errors(20_001), "x")
    assert before[-1] != after[-1]
    assert list(log_lines(before, after)) == []
    assert list(log_lines(errors(MOST), after)) == ["x: 19,501 more cannot be used"]


def test_a_further_one_is_no_more_work_among_many() -> None:
    def work(number: int) -> int:
        mirror = Mirror(Service)
        mirror.begin_list()
        for index in range(number):
            mirror.add_listed(bad(index, 1))
        mirror.finish_list("1")

        def go_on() -> None:
            mirror.apply_change(bad(number, 2))
            assert len(mirror.errors) == MOST + 1
            assert mirror.errors[-1].reason == f"{number + 1 - MOST:,} more cannot be used"

        return calls_of(go_on)

    assert work(5000) < 1.5 * work(600)


def test_a_list_is_compared_with_the_one_before_in_one_pass() -> None:
    before = errors(MOST)
    now = errors(MOST + 1)

    class Counting(ObjectStatus, frozen=True):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counting.compared += 1
            return super().__eq__(other)

        def __hash__(self) -> int:
            return super().__hash__()

    counted = [Counting(where=each.where, field="", reason="") for each in before]
    assert len(list(log_lines(counted, now))) > 0
    assert Counting.compared <= 2 * MOST
