"""How Sphinx makes a site of the Markdown pages; `make docs` runs it.

The pages are written for a forge, which shows them as they are, so nothing in them is meant for
Sphinx. The root of the repository is the source directory: links between pages are the same there
and on the site, and a link to a file that is not a page leads to a copy of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT: Final = Path(__file__).parents[1]

NAVIGATION: Final = {
    "Start": ["README", "docs/tour"],
    "Install": ["deploy/README", "docs/install/*"],
    "Guides": ["docs/guides/*", "docs/load-balancer", "docs/monitoring"],
    "Reference": [
        "docs/cli",
        "docs/addresses",
        "docs/client-address",
        "docs/page",
        "docs/flows",
        "docs/api",
        "docs/metrics",
        "docs/alerts",
        "docs/reliability",
        "docs/differences",
        "docs/comparison",
        "SECURITY",
        "SUPPORT",
        "CHANGELOG",
    ],
    "How it works": ["docs/architecture", "docs/dataplane", "bench/README", "CONTRIBUTING"],
    "Decisions": ["docs/decisions/*"],
}
"""Pages in their order. Folders take new pages by themselves; a page that is in no folder and not
named here fails the build."""

project = "uproxy"
extensions = ["myst_parser"]
include_patterns = ["*.md", "docs/**.md", "deploy/**.md", "bench/**.md"]
exclude_patterns = [".*", "build", "uproxy", "tests", "examples"]
root_doc = "docs/index"
myst_heading_anchors = 4
nitpicky = True
# A page that is looked at offline asks no other server for anything.
html_theme = "furo"
html_title = "uproxy"
html_copy_source = False
html_show_copyright = False
html_static_path = ["site/uproxy.css"]
html_css_files = ["uproxy.css"]
html_additional_pages = {"index": "redirect.html"}
templates_path = ["site"]
pygments_style = "default"
pygments_dark_style = "github-dark"


def pages(pattern: str) -> list[str]:
    """The pages that match, without suffix; that of the folder itself comes first."""
    found = (each.relative_to(ROOT).with_suffix("") for each in ROOT.glob(f"{pattern}.md"))
    return sorted(map(str, found), key=lambda each: (not each.endswith("/README"), each))


def navigation() -> str:
    """A table of contents for each section, with nothing that does not exist yet."""
    sections = []
    for caption, patterns in NAVIGATION.items():
        if listed := [f"/{page}" for each in patterns for page in pages(each)]:
            sections += [f"```{{toctree}}\n:hidden:\n:caption: {caption}\n", *listed, "```\n"]
    return "\n".join(sections)


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    if name == root_doc:
        source[0] += "\n" + navigation()


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)
