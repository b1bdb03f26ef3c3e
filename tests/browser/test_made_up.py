"""The page in a real browser, with statuses that a test makes up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from tests.browser.devtools import Browser, Page
from tests.browser.server import serving
from tests.http.statuses import FULL, KUBIA, NODE_PORT
from tests.nasty import MARKUP, NASTY, is_fit_to_print
from tests.ports import free_port
from uproxy.cli.output.numbers import amount, byte_size, counted
from uproxy.cli.output.status import unserved_blocks
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.flows.counters import Counters
from uproxy.core.report.flow_format import FlowFilter, FlowsView
from uproxy.core.report.recent_events import EventView
from uproxy.core.report.status import FrontendState, FrontendStatus, ObjectStatus, ServiceStatus
from uproxy.core.report.status_format import ServiceView
from uproxy.core.route import Backend, Frontend, ServicePortName

ROWS = "document.querySelectorAll('#ports .port').length"
JSON_TEXTS = [text for name, text in NASTY.items() if name != "surrogate"]
MANY = 10_000


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.page() as shown:
        yield shown


def open_page(page: Page, port: int, path: str = "/") -> None:
    page.open(f"http://127.0.0.1:{port}{path}")
    page.wait_for(ROWS)


def frontend(name: str, number: int = 0) -> FrontendStatus:
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return msgspec.structs.replace(
        NODE_PORT,
        owner=ServicePortName("default", name, "http", "TCP"),
        frontend=Frontend("TCP", address, 80),
        state=FrontendState.PAUSED if number % 1000 == 999 else FrontendState.SERVING,
        backends=tuple(Backend(f"127.1.{number & 255}.{last}", 8080) for last in range(3)),
    )


def test_hostile_names_stay_text(page: Page) -> None:
    """Whoever may write a Service or a manifest must not be able to write on the page."""
    markup = f"<img src=x onerror=alert(1)>{MARKUP}"
    texts = [markup, *JSON_TEXTS]
    status = msgspec.structs.replace(
        FULL,
        node=markup,
        frontends=tuple(
            msgspec.structs.replace(frontend(text, number), state=FrontendState.FAILED, reason=text)
            for number, text in enumerate(texts)
        ),
        services=tuple(
            ServiceStatus(service=ObjectName(each, each), reason=each) for each in texts
        ),
        objects=tuple(ObjectStatus(where=each, field=each, reason=each) for each in texts),
        not_ready=tuple(texts),
    )
    events = [EventView(1.0, text, text, text, text) for text in texts]
    with serving(status, events) as port:
        open_page(page, port)
        page.run("document.querySelectorAll('#ports .open').forEach((each) => each.click())")
        page.wait_for("document.querySelectorAll('.detail table').length > 3")
        text = page.run("document.body.textContent")
        elements = page.run("document.querySelectorAll('img, main script, main a').length")
    assert markup in text
    assert elements == 0
    assert is_fit_to_print(text)
    assert list(page.console) == []


NUMBERS = sorted(
    {
        base * 10**power + extra
        for base in (0, 1, 2.5, 4.5, 9.949, 9.95, 9.96, 12.5, 99.5, 999.4, 999.5, 999.6)
        for power in range(-1, 17, 2)
        for extra in (0, 0.05, 0.15, 0.25, 0.35, 0.5, 0.75)
    }
)


def test_unserved_services_have_the_title_of_the_command_line(page: Page) -> None:
    """Most of them, such as headless ones, have no problem."""
    title = next(iter(unserved_blocks([ServiceView("default/members", "headless")], None)))[1]
    with serving(FULL, []) as port:
        open_page(page, port)
        shown = page.run("document.querySelector('#services h2').textContent")
    assert f"{shown}:" == title


def test_numbers_are_those_of_the_command_line(page: Page) -> None:
    with serving(FULL, []) as port:
        open_page(page, port)
        script = f"""
            import('/page/numbers.js').then((n) => {NUMBERS}.map((each) =>
                [n.amount(each), n.byteSize(each), n.counted(Math.round(each), 'flow')]))
        """
        found = page.run(script)
    for number, (shown, size, count) in zip(NUMBERS, found, strict=True):
        assert (number, shown, size) == (number, amount(number), byte_size(number))
        if number < 1e15 and number % 1 == 0:
            assert count == counted(int(number), "flow")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("10.0.0.1:80/TCP is taken", ["10.0.0.1:80/TCP"]),
        ("no backend answers: a-0 (10.0.0.1:80), b", ["(10.0.0.1:80),"]),
        ("[2001:db8::1]:53/UDP and 2001:db8::2", ["[2001:db8::1]:53/UDP", "2001:db8::2"]),
        ("for default/web:main, not default/face:b", []),
        ("a--b --lb-pool 10.0.0.0/8; see", ["--lb-pool", "10.0.0.0/8;"]),
    ],
)
def test_addresses_and_options_in_sentences(page: Page, text: str, whole: list[str]) -> None:
    script = f"""
        import('/page/text.js').then(({{ sentence }}) => sentence({text!r})
            .map((part) => [typeof part, part.textContent ?? part]))
    """
    with serving(FULL, []) as port:
        open_page(page, port)
        parts = page.run(script)
    assert "".join(part for _, part in parts) == text
    assert [part for kind, part in parts if kind == "object"] == whole


DURATIONS = {
    0.4: "0 s",
    59.9: "59 s",
    60: "1 min",
    3599: "59 min",
    3600: "1 h",
    11999: "3 h 19 min",
    86400: "1 d",
    180000: "2 d 2 h",
}


def test_durations(page: Page) -> None:
    with serving(FULL, []) as port:
        open_page(page, port)
        script = f"import('/page/numbers.js').then((n) => {list(DURATIONS)}.map(n.duration))"
        assert page.run(script) == list(DURATIONS.values())


def test_ten_thousand_services(page: Page) -> None:
    """Only one page of the table is in the document, and all of them can be found."""
    ports = [frontend(f"web-{number:04}", number) for number in range(MANY)]
    status = msgspec.structs.replace(FULL, frontends=tuple(ports), counters={})
    names = "[...document.querySelectorAll('#ports .open')].map((each) => each.textContent)"
    with serving(status, []) as port:
        open_page(page, port)
        assert page.run(ROWS) == 100
        assert page.run(names)[:11] == [
            *(f"default/web-{thousand}999:http/TCP" for thousand in range(10)),
            "default/web-0000:http/TCP",
        ]
        assert page.run("document.querySelector('#range').textContent") == "1 to 100 of 10,000"
        assert page.run("document.querySelectorAll('*').length") < 5000
        page.run("document.querySelector('#next').click()")
        assert page.run("location.search") == "?page=2"
        assert page.run("document.querySelector('#range').textContent") == "101 to 200 of 10,000"
        page.press("/", "/")
        page.type("127.1.7.2:8080 web-76")
        page.wait_for(f"{ROWS} < 100")
        assert page.run(names) == ["default/web-7687:http/TCP"]
        assert page.run("document.querySelector('#pager').hidden") is True
    assert list(page.console) == []


@pytest.mark.parametrize("order", ["constructor", "toString", "-__proto__", "-", "--name", "x"])
def test_an_order_that_there_is_not_is_that_of_problems(page: Page, order: str) -> None:
    """The URL may come from anyone. The banner would say that the server does not answer."""
    with serving(FULL, []) as port:
        open_page(page, port, f"/?sort={order}")
        page.wait_for("document.querySelector('#updated').textContent.includes('ago')")
        assert page.run("document.querySelector('#sort').value") == "state"
        assert page.run("document.querySelector('#gone').hidden") is True
    assert list(page.console) == []


def test_the_choices_say_what_is_shown(page: Page) -> None:
    """A state that there is not would show nothing, under a choice without a word."""
    chosen = "['#state', '#sort'].map((id) => document.querySelector(id).selectedOptions[0]?.text)"
    with serving(FULL, []) as port:
        open_page(page, port, "/?state=Serving&sort=-name")
        assert page.run(chosen) == ["every state", "name"]


def test_pages_are_turned_from_the_one_that_is_shown(page: Page) -> None:
    """Also if the URL asks for a later one, for example since Services were removed meanwhile."""
    ports = tuple(frontend(f"web-{number:03}", number) for number in range(250))
    status = msgspec.structs.replace(FULL, frontends=ports, counters={})
    with serving(status, []) as port:
        open_page(page, port, "/?page=9")
        assert page.run("document.querySelector('#range').textContent") == "201 to 250 of 250"
        page.run("document.querySelector('#previous').click()")
        assert page.run("document.querySelector('#range').textContent") == "101 to 200 of 250"
        assert page.run("location.search") == "?page=2"


def test_what_has_not_changed_is_neither_sent_nor_parsed_again(page: Page) -> None:
    asked = """
        import('/page/polling.js').then(async ({ ask }) => {
            const first = await ask('api/v1/summary?');
            const second = await ask('api/v1/summary?');
            return [first.changed, second.changed, first.content === second.content];
        })
    """
    with serving(FULL, []) as port:
        open_page(page, port)
        assert page.run(asked) == [True, False, True]


def test_an_error_of_the_page_is_not_taken_for_one_of_the_server(page: Page) -> None:
    with serving(FULL, []) as port:
        open_page(page, port)
        page.run("document.querySelector('#ports tbody').remove()")
        page.wait_for("!document.querySelector('#gone').hidden")
        text = page.run("document.querySelector('#gone').innerText")
    assert text.startswith("This page has an error (")
    assert [each for each in page.console if "TypeError" in each]


def test_nothing_is_asked_while_nobody_looks(page: Page) -> None:
    """A browser may have the page in a tab in the background for weeks."""
    asked = """
        import('/page/polling.js').then(async ({ repeat }) => {
            let hidden = true, rounds = 0, later = null;
            Object.defineProperty(document, 'hidden', { get: () => hidden, configurable: true });
            const timer = window.setTimeout;
            window.setTimeout = (call) => { later = call; return 0; };
            repeat(async () => { rounds += 1; });
            await Promise.resolve();
            await later();
            const behind = rounds;
            hidden = false;
            document.dispatchEvent(new Event('visibilitychange'));
            await Promise.resolve();
            window.setTimeout = timer;
            return [behind, rounds];
        })
    """
    with serving(FULL, []) as port:
        open_page(page, port)
        assert page.run(asked) == [0, 1]


def test_the_server_goes_and_comes_back(page: Page) -> None:
    port = free_port()
    with serving(FULL, [], port):
        open_page(page, port)
        assert page.run("document.querySelector('#gone').hidden") is True
    page.wait_for("!document.querySelector('#gone').hidden")
    text = page.run("document.querySelector('#gone').innerText")
    opacity = page.run("getComputedStyle(document.querySelector('#ports')).opacity")
    assert "uproxy does not answer since " in text
    assert float(opacity) < 1
    assert page.run(ROWS) == 2, "what was known is still shown"
    changed = Counters(flows=4321)
    after = msgspec.structs.replace(FULL, counters={KUBIA: changed}, node="node-2")
    with serving(after, [], port):
        page.wait_for("document.querySelector('#gone').hidden")
        assert float(page.run("getComputedStyle(document.querySelector('#ports')).opacity")) == 1
        assert "node-2" in page.text()


def test_another_version_brings_its_own_page(page: Page) -> None:
    port = free_port()
    with serving(FULL, [], port, version="1"):
        open_page(page, port)
        page.run("window.loaded = true")
        page.wait_for("document.querySelector('#updated').textContent.startsWith('1 · ')")
    with serving(FULL, [], port, version="2"):
        page.wait_for("document.querySelector('#updated')?.textContent.startsWith('2 · ')")
        assert page.run("window.loaded") is None


def test_a_worker_that_hangs_does_not_stop_the_page(page: Page) -> None:
    async def hang(_: FlowFilter) -> FlowsView:
        await asyncio.sleep(3600)
        raise AssertionError

    answers = "performance.getEntriesByName(location.origin + '/api/v1/summary').length"
    with serving(FULL, [], flows=hang) as port:
        open_page(page, port)
        page.wait_for(f"{answers} >= 3")
        assert page.run("document.querySelector('#gone').hidden") is True


def test_states_have_a_colour_and_a_word(page: Page) -> None:
    frontends = [
        msgspec.structs.replace(frontend(state), state=FrontendState(state))
        for state in FrontendState
    ]
    pills = """[...document.querySelectorAll('#ports .stateColumn .pill')].map((pill) =>
        [pill.innerText, ...getComputedStyle(pill).color.match(/\\d+/g).map(Number)])"""
    with serving(msgspec.structs.replace(FULL, frontends=tuple(frontends)), []) as port:
        open_page(page, port)
        found = page.run(pills)
    assert [word for word, *_ in found] == [
        "failed",
        "conflict",
        "degraded",
        "paused",
        "pending",
        "elsewhere",
        "serving",
    ]
    for word, red, green, _ in found:
        assert (red > 3 * green) is (word in ("failed", "conflict", "degraded"))
        assert (green > 3 * red) is (word == "serving")


@pytest.mark.parametrize("width", [360, 800, 1280, 1920])
def test_the_longest_names_fit(browser: Browser, width: int) -> None:
    label = "x" * 63
    long = msgspec.structs.replace(
        NODE_PORT,
        owner=ServicePortName(label, label, "p" * 15, "TCP"),
        frontend=Frontend("TCP", "2001:db8:1111:2222:3333:4444:5555:6666", 65535),
        state=FrontendState.FAILED,
        reason="y" * 300,
    )
    status = msgspec.structs.replace(
        FULL,
        node="n" * 253,
        frontends=(long,),
        services=(ServiceStatus(service=ObjectName(label, label), reason="z" * 300),),
        not_ready=("r" * 500,),
    )
    events = [EventView(1.0, "Warning", "R" * 60, f"Service {label}/{label}", "w" * 1000)]
    with serving(status, events) as port, browser.page(width=width) as page:
        open_page(page, port)
        page.run("document.querySelector('#ports .open').click()")
        page.wait_for("document.querySelectorAll('.detail table').length")
        scroll, client = page.run(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert scroll <= client <= width
        addresses = "[...document.querySelectorAll('.detail .address')]"
        assert set(page.run(f"{addresses}.map((each) => each.getClientRects().length)")) == {1}
