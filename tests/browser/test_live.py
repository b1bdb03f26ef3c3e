"""The page in a real browser, with a real uproxy under traffic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.browser.devtools import Browser, BrowserError, Page
from tests.browser.live import LONGEST, PORTS, live

WIDTHS = (360, 800, 1280, 1920)
NAMES = "[...document.querySelectorAll('#ports .open')].map((each) => each.textContent)"
OPEN_ALL = "document.querySelectorAll('#ports .open').forEach((each) => each.click())"
BEYOND_THE_EDGE = """
    [...document.querySelectorAll('body *')]
        .filter((each) => each.getClientRects().length)
        .filter((each) => !each.closest('caption, .detail thead, option'))
        .filter((each) => {
            const { left, right } = each.getBoundingClientRect();
            return left < 0 || right > document.documentElement.clientWidth + 0.5;
        })
        .map((each) => each.outerHTML.slice(0, 120))
"""
BROKEN_ADDRESSES = """
    [...document.querySelectorAll('.address, .whole')]
        .filter((each) => {
            const range = document.createRange();
            range.selectNodeContents(each);
            return new Set([...range.getClientRects()].map((rect) => rect.top)).size > 1;
        })
        .map((each) => each.textContent)
"""
FAINT = """
    (() => {
        const luminance = (color) => {
            const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map((each) => each / 255)
                .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const background = (node) => {
            const color = getComputedStyle(node).backgroundColor;
            return color === 'rgba(0, 0, 0, 0)' ? background(node.parentElement) : color;
        };
        return [...document.querySelectorAll('body *')]
            .filter((each) => each.getClientRects().length)
            .filter((each) => [...each.childNodes].some((one) => one.data?.trim()))
            .map((each) => {
                const pair = [getComputedStyle(each).color, background(each)].map(luminance);
                return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), each.outerHTML];
            })
            .filter(([contrast]) => contrast < 4.5)
            .map(([contrast, text]) => `${contrast.toFixed(1)} ${text.slice(0, 100)}`);
    })()
"""
"""Texts with less contrast than WCAG asks for (1.4.3, level AA)."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[str]:
    with live(tmp_path_factory.mktemp("live")) as found:
        yield found


@contextmanager
def shown(
    browser: Browser, url: str, width: int = 1280, *, dark: bool = False, query: str = ""
) -> Iterator[Page]:
    """The page once it has rates; it has nothing to complain of until the end."""
    with browser.page(width=width, dark=dark) as page:
        page.open(url + query)
        page.wait_for("document.querySelectorAll('#ports tbody tr').length")
        yield page
        assert list(page.console) == []


def cell(name: str, index: int) -> str:
    """An expression for what is in a column of a port."""
    rows = "[...document.querySelectorAll('#ports .port')]"
    found = f"find((row) => row.querySelector('.open').textContent === '{name}')"
    return f"{rows}.{found}.cells[{index}].textContent"


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits(browser: Browser, url: str, width: int) -> None:
    """With all rows open, nothing is beyond the edge, there is no scrollbar, and no address is
    broken."""
    with shown(browser, url, width) as page:
        page.run(OPEN_ALL)
        page.wait_for(f"document.querySelector('#ports').innerText.includes('{LONGEST}')")
        page.wait_for("document.querySelectorAll('.detail table').length >= 10")
        page.wait_for("!document.querySelector('#flows').hidden")
        scroll, client = page.run(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert scroll <= client <= width
        assert page.run(BEYOND_THE_EDGE) == []
        assert page.run(BROKEN_ADDRESSES) == []
        smallest = (
            "Math.min(...[...document.querySelectorAll('.address')].map((each) => "
            "parseFloat(getComputedStyle(each).fontSize)))"
        )
        assert page.run(smallest) >= 9


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colours(browser: Browser, url: str, dark: bool) -> None:
    with shown(browser, url, dark=dark) as page:
        page.run(OPEN_ALL)
        page.wait_for("document.querySelectorAll('.detail table').length >= 10")
        page.wait_for("!document.querySelector('#flows').hidden")
        background = page.run("getComputedStyle(document.body).backgroundColor")
        red = int(background.removeprefix("rgb(").split(",")[0])
        assert (red < 64) is dark
        assert page.run(FAINT) == []


def test_one_row_for_each_port_problems_first(browser: Browser, url: str) -> None:
    with shown(browser, url) as page:
        rows = page.run(NAMES)
        states = page.run(
            "[...document.querySelectorAll('#ports .stateColumn .pill')].map((e) => e.innerText)"
        )
    found = dict(zip(rows, states, strict=True))
    assert found.pop("default/broken:main/TCP") in ("serving", "degraded")
    expected = {name: state for name, state in PORTS.items() if name in found}
    assert [*found.items()] == [*expected.items()]


def test_numbers_grow_and_the_page_says_how_old_they_are(browser: Browser, url: str) -> None:
    with shown(browser, url, 1920) as page:
        page.wait_for(f"parseFloat({cell('default/web:main/TCP', 4)}) > 0")
        total = page.run(cell("default/web:main/TCP", 9))
        page.wait_for(f"{cell('default/web:main/TCP', 9)} !== '{total}'")
        page.wait_for(f"parseFloat({cell('default/broken:main/TCP', 8)}) > 0")
        text = page.text()
        points = "document.querySelector('#tile-flows polyline').points.length"
        before = page.run(points)
        page.wait_for(f"{points} > {before}")
    for each in ("Flows", "Active flows", "In, from clients", "Out, to clients", "Failures"):
        assert each in text
    assert "by io_uring" in text or "by epoll" in text
    assert " · up " in text
    assert " s ago" in text


def test_samples_from_before_it_was_opened(browser: Browser, url: str) -> None:
    with shown(browser, url) as page:
        page.wait_for("document.querySelector('#tile-flows polyline')?.points.length >= 3")
    with shown(browser, url) as page:
        first = "performance.getEntriesByName(location.origin + '/api/v1/history?after=0').length"
        page.wait_for("document.querySelector('#tile-flows polyline')?.points.length >= 3")
        assert page.run(first) == 1


def test_keyboard(browser: Browser, url: str) -> None:
    """A row is opened, and the table sorted, without a mouse; the focus stays while rows move."""
    focused = "document.activeElement.textContent"
    with shown(browser, url) as page:
        page.run("document.querySelector('#state').focus()")
        for _ in range(20):
            page.press("Tab")
            if page.run(focused) == "Flows/s":
                break
        page.press("Enter", "\r")
        page.wait_for("document.querySelector('[aria-sort]').innerText.includes('Flows/s')")
        assert "sort=flows" in page.run("location.search")
        for _ in range(20):
            page.press("Tab")
            if page.run(focused) == "default/web:main/TCP":
                break
        page.press("Enter", "\r")
        page.wait_for("document.activeElement.getAttribute('aria-expanded') === 'true'")
        page.wait_for("document.querySelector('#ports').innerText.includes('web-1')")
        page.run("document.querySelector('[data-key=name] button').click()")
        page.run("document.querySelector('[data-key=name] button').click()")
        rows = page.run(NAMES)
        assert rows == sorted(PORTS, reverse=True)
        assert page.run(focused) == "default/web:main/TCP"
        page.press("Enter", "\r")
        page.wait_for("document.activeElement.getAttribute('aria-expanded') === 'false'")
        assert page.run("document.querySelectorAll('.detail').length") == 0


def test_the_detail_has_frontends_and_pods_and_counts_once(browser: Browser, url: str) -> None:
    with shown(browser, url, query="?filter=default/web:main/tcp") as page:
        page.run(OPEN_ALL)
        page.wait_for("document.querySelectorAll('.detail table').length === 2")
        frontends, pods = page.run(
            "[...document.querySelectorAll('.detail table')].map((each) => each.innerText)"
        )
    assert "NodePort" in frontends
    assert "ExternalIP" in frontends
    assert "kB" not in frontends, "counts are those of the port, and not repeated"
    assert pods.count("web-0") == pods.count("web-1") == 1
    assert "used" in pods


def test_the_filter_is_in_the_url(browser: Browser, url: str) -> None:
    with shown(browser, url) as page:
        page.press("/", "/")
        page.type("empt")
        page.wait_for(f"{NAMES}.join() === 'default/empty:main/TCP'")
        assert page.run("location.search") == "?filter=empt"
        assert page.run("document.querySelector('#count').textContent") == "1 of 6"
        page.press("Escape")
        page.wait_for(f"{NAMES}.length === 6")
        assert page.run("location.search") == ""
        assert page.run("document.activeElement === document.body")
    with shown(browser, url, query="?filter=WEB%20tcp&state=serving&sort=-name") as page:
        assert page.run(NAMES) == ["default/web:main/TCP"]
        assert page.run("document.querySelector('#text').value") == "WEB tcp"
        assert page.run("document.querySelector('#state').value") == "serving"
    with shown(browser, url, query="?sort=nonsense&page=99&state=serving") as page:
        assert "default/web:main/TCP" in page.run(NAMES)


def test_events_and_bad_flows(browser: Browser, url: str) -> None:
    with shown(browser, url) as page:
        page.wait_for("!document.querySelector('#flows').hidden")
        events = page.run("document.querySelector('#events').innerText")
        flows = page.run("document.querySelector('#flows').innerText")
    assert "PortConflict" in events
    assert "is starting" in events
    assert "SC default/broken:main/TCP from 127.0.0.1 to broken-7d9f8b6c5d-x2lqz" in flows
    assert "ECONNREFUSED" in flows


def test_landmarks_and_captions(browser: Browser, url: str) -> None:
    with shown(browser, url) as page:
        page.run(OPEN_ALL)
        page.wait_for("document.querySelectorAll('.detail table').length >= 10")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = {
        (each["role"]["value"], each.get("name", {}).get("value", ""))
        for each in nodes
        if not each["ignored"]
    }
    roles = {role for role, _ in named}
    assert roles >= {"banner", "main", "search", "region", "contentinfo", "columnheader", "row"}
    assert ("table", "Service ports by problems first") in named
    assert ("table", "Pods of default/web:main/TCP") in named
    assert ("button", "default/web:main/TCP") in named
    assert ("region", "Recent Events") in named
    assert ("searchbox", "Show Service ports that contain all of these words") in named
    unnamed = [role for role, name in named if role in ("button", "region", "table") and not name]
    assert unnamed == []


def test_nothing_is_loaded_from_elsewhere_and_nothing_changed(browser: Browser, url: str) -> None:
    with shown(browser, url) as page:
        page.wait_for("!document.querySelector('#flows').hidden")
        asked = [each for each in page.requests if not each.startswith("data:")]
    assert all(each.startswith(url) for each in asked)
    assert any(each.endswith("/page/page.css") for each in asked)


@pytest.mark.parametrize(
    "attack",
    [
        "document.body.innerHTML = '<b>hello</b>'",
        "document.body.insertAdjacentHTML('beforeend', '<b>hello</b>')",
        "fetch('http://127.0.0.2:1/')",
    ],
)
def test_the_policy_forbids(browser: Browser, url: str, attack: str) -> None:
    with browser.page() as page:
        page.open(url)
        page.wait_for("document.querySelectorAll('#ports tbody tr').length")
        with pytest.raises(BrowserError):
            page.run(attack)
        assert any(
            "Content Security Policy" in each or "TrustedHTML" in each for each in page.console
        )


def test_scripts_and_styles_in_the_page_are_not_run(browser: Browser, url: str) -> None:
    script = """
        (() => {
            const script = document.createElement('script');
            const style = document.createElement('style');
            style.append('body { color: rgb(1, 2, 3) }');
            try { script.append('window.ran = true'); document.head.append(script); } catch {}
            document.head.append(style);
            const { color } = getComputedStyle(document.body);
            return [window.ran === undefined, color !== 'rgb(1, 2, 3)'];
        })()
    """
    with browser.page() as page:
        page.open(url)
        page.wait_for("document.querySelectorAll('#ports tbody tr').length")
        assert page.run(script) == [True, True]
