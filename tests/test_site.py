"""The site that `make docs` makes: complete, without a warning, and without another server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.browser.devtools import PROGRAM, chromium
from tests.test_documents import ROOT

LOADED: Final = re.compile(r'<(?:script|img|link|source|iframe)\b[^>]*\b(?:src|href)="(\w+:)?//')
"""What a browser would ask another server for; links that a reader may follow are not."""

IMPORTED: Final = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])(?:\w+:)?//")


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` does, with messages that are the same wherever it is done.

    Sphinx translates them, and colours them where CI is set, as GitHub does.
    """
    options = ("--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", source / "docs")
    command = (sys.executable, "-m", "sphinx", *options, source, site)
    plain = {**os.environ, "NO_COLOR": "1", "LANGUAGE": "C", "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=plain)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    done = build(ROOT, directory)
    assert (done.returncode, done.stderr) == (0, "")
    return directory


def test_every_page_is_in_the_contents(site: Path) -> None:
    first = (site / "docs" / "index.html").read_text()
    pages = [*ROOT.glob("*.md"), *(each for each in (ROOT / "docs").rglob("*.md"))]
    found = {str(each.relative_to(ROOT).with_suffix(".html")) for each in pages}
    listed = {
        str((site / "docs" / link).resolve().relative_to(site.resolve()))
        for link in re.findall(r'<a class="reference internal" href="([^"#:]+)"', first)
    }
    assert found - listed == {"docs/index.html"}
    assert {"bench/README.html", "deploy/README.html"} <= listed


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages, styles = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert [each for each in pages if LOADED.search(each.read_text())] == []
    assert [each for each in styles if IMPORTED.search(each.read_text())] == []
    assert len(pages) > 40 and styles  # noqa: PT018


def test_links_to_files_lead_to_copies(site: Path) -> None:
    page = (site / "docs" / "cli.html").read_text()
    (link,) = set(re.findall(r'href="([^"]+/uproxy-config\.schema\.json)"', page))
    copy = (site / "docs" / link).read_text()
    assert copy == (ROOT / "docs" / "uproxy-config.schema.json").read_text()


def test_the_root_leads_to_the_first_page(site: Path) -> None:
    assert "url=docs/index.html" in (site / "index.html").read_text()


@pytest.mark.skipif(PROGRAM is None, reason="needs chromium")
def test_files_are_enough_to_read_and_search(site: Path) -> None:
    """On a phone, too, where only tables and code are wider than the window."""
    with chromium() as browser, browser.page(width=360) as page:
        page.open(f"{(site / 'search.html').as_uri()}?q=affinity")
        found = "[...document.querySelectorAll('ul.search a')].map((each) => each.text)"
        page.wait_for(f"{found}.includes('The command line')")
        page.open((site / "docs" / "cli.html").as_uri())
        page.wait_for("location.href.includes('cli') && document.readyState === 'complete'")
        assert page.run("document.documentElement.scrollWidth") == 360
        assert page.run("getComputedStyle(document.querySelector('h1')).fontSize") == "28.8px"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository with two pages, and the configuration of this one."""
    shutil.copytree(ROOT / "docs" / "site", tmp_path / "docs" / "site")
    shutil.copy(ROOT / "docs" / "conf.py", tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text(
        "# One\n\n[two](../README.md#a-heading), [z](../)\n"
    )
    (tmp_path / "README.md").write_text("# Two\n\n## A heading\n\n[one](docs/index.md)\n")
    return tmp_path


def test_a_new_page_of_a_folder_is_listed(small: Path) -> None:
    """Also if the site has been built without it."""
    assert build(small, small / "build").returncode == 0
    (small / "docs" / "guides").mkdir()
    (small / "docs" / "guides" / "new.md").write_text("# A new guide\n\n[all](../guides/)\n")
    done = build(small, small / "build")
    assert (done.returncode, done.stderr) == (0, "")
    index = (small / "build" / "docs" / "index.html").read_text()
    assert 'href="guides/new.html"' in index
    assert (
        '<a class="reference internal" href="../README.html"><span class="std std-doc">z' in index
    )
    guide = (small / "build" / "docs" / "guides" / "new.html").read_text()
    assert (
        '<a class="reference internal" href="../index.html"><span class="std std-doc">all' in guide
    )


def test_what_fails_the_build(small: Path) -> None:
    (small / "docs" / "new.md").write_text("# In no section\n")
    (small / "README.md").write_text("# Two\n\n[x](x.md), [y](no/)\n")
    done = build(small, small / "build")
    assert done.returncode == 1
    assert [
        (Path(place.partition(":")[0]).name, kind)
        for place, kind in re.findall(
            r"^(.+): WARNING: .+ \[([\w.]+)\]$", done.stderr, re.MULTILINE
        )
    ] == [
        ("new.md", "toc.not_included"),
        ("README.md", "myst.xref_missing"),
        ("README.md", "myst.xref_missing"),
        ("index.md", "myst.xref_missing"),
    ]
