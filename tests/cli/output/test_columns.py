"""Tables of plain text, and short numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from uproxy.cli.output.columns import coloured, columns, grouped, paragraph
from uproxy.cli.output.numbers import amount, byte_size, counted

HEAD = ("NAME", "N", "WHY")
ROWS = [("web", "7", "all is well with it"), ("kube-dns", "12", "")]
LONG = "a reason that has a few more words than there is room for on one line of a terminal"


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        pytest.param(
            None,
            [
                "NAME       N  WHY",
                "web        7  all is well with it",
                "kube-dns  12",
            ],
            id="pipe",
        ),
        pytest.param(
            80,
            [
                "NAME       N  WHY",
                "web        7  all is well with it",
                "kube-dns  12",
            ],
            id="everything fits",
        ),
        pytest.param(
            32,
            [
                "NAME       N  WHY",
                "web        7",
                "    all is well with it",
                "kube-dns  12",
            ],
            id="text goes below where there is no room for it",
        ),
    ],
)
def test_columns(width: int | None, lines: list[str]) -> None:
    assert list(columns(HEAD, ROWS, width=width, right=frozenset({1}))) == lines


def test_a_long_text_continues_in_its_own_column() -> None:
    lines = list(columns(HEAD, [("web", "7", LONG)], width=60))
    assert lines == [
        "NAME  N  WHY",
        "web   7  a reason that has a few more words than there is",
        "         room for on one line of a terminal",
    ]


def test_a_pipe_gets_a_line_for_each_row() -> None:
    assert list(columns((), [("web", "7", LONG * 10)])) == [f"web  7  {LONG * 10}"]


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        pytest.param((), [], id="nothing"),
        pytest.param(HEAD, [], id="head only"),
        pytest.param(HEAD, ROWS, id="both"),
    ],
)
def test_lines_have_no_trailing_blanks(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = list(columns(head, rows))
    assert len(lines) == len(rows) + bool(head)
    assert [line for line in lines if line != line.rstrip()] == []


def test_the_first_cell_gets_a_line_of_its_own() -> None:
    rows = [
        ("default/one-long-name", "127.0.0.1:30080/TCP", "serving", ""),
        ("default/one-long-name", "127.0.0.1:30081/TCP", "paused", "no endpoints"),
        ("default/other", "127.0.0.1:30082/TCP", "serving", ""),
    ]
    head = ("SERVICE", "FRONTEND", "STATE", "REASON")
    assert list(grouped(head, rows, width=40)) == [
        "SERVICE",
        "  FRONTEND             STATE    REASON",
        "default/one-long-name",
        "  127.0.0.1:30080/TCP  serving",
        "  127.0.0.1:30081/TCP  paused",
        "    no endpoints",
        "default/other",
        "  127.0.0.1:30082/TCP  serving",
    ]
    assert list(grouped(head, rows)) == list(columns(head, rows))
    assert list(grouped(head, rows, width=80)) == list(columns(head, rows, width=80))


def test_colours_do_not_move_columns() -> None:
    rows = [("serving", "x"), ("failed", "y"), ("default/failed", "z")]
    lines = list(columns((), rows, paint=coloured))
    assert lines == [
        "\x1b[32mserving       \x1b[0m  x",
        "\x1b[31mfailed        \x1b[0m  y",
        "default/failed  z",
    ]


def test_a_word_is_never_broken() -> None:
    command = "kubectl-get-endpointslices-with-a-very-long-name-indeed"
    assert list(paragraph(f"try {command}", width=30)) == ["try", command]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.04, "0"),
        (0.5, "0.5"),
        (1, "1"),
        (9.94, "9.9"),
        (9.96, "10"),
        (12.3, "12"),
        (999, "999"),
        (999.7, "1.0k"),
        (1234, "1.2k"),
        (56_789, "57k"),
        (999_999, "1.0M"),
        (7_000_000_000, "7.0G"),
        (3e15, "3.0P"),
        (5e18, "5000P"),
    ],
)
def test_amount(number: float, text: str) -> None:
    assert amount(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (512, "512 B"), (1500.4, "1.5 kB"), (25_000_000, "25 MB")]
)
def test_byte_size(number: float, text: str) -> None:
    assert byte_size(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 flows"), (1, "1 flow"), (2, "2 flows"), (10_000, "10,000 flows")]
)
def test_counted(number: int, text: str) -> None:
    assert counted(number, "flow") == text
