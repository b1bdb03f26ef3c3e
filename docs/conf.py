"""How Sphinx makes a site of the Markdown pages; `make docs` runs it.

The pages are written for a forge, which shows them as they are, so nothing in them is meant for
Sphinx. The root of the repository is the source directory: links between pages are the same there
and on the site. A link to a file that is not a page leads to a copy of it, and one to a folder to
its README.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT: Final = Path(__file__).parents[1]

NAVIGATION: Final = {
    "Start": ["README", "docs/tour"],
    "Install": [
        "docs/install/README",
        *(f"docs/install/{page}" for page in ("pip", "systemd", "bundle", "image", "kubernetes")),
        *(f"docs/install/{page}" for page in ("kind", "k3s", "kubeadm", "*")),
        "deploy/**/README",
    ],
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

TITLES: Final = {
    "README": "Overview",
    "deploy/README": "Manifests and components",
    "deploy/helm/uproxy/README": "The Helm chart",
}
"""In the contents, where the page's own title would not tell it from the others."""

project = "uproxy"
extensions = ["myst_parser"]
include_patterns = ["*.md", "docs/**.md", "deploy/**.md", "bench/**.md"]
exclude_patterns = [".*", "build", "uproxy", "tests", "examples"]
root_doc = "docs/index"
myst_heading_anchors = 4
nitpicky = True
# Forges know more languages than Pygments does; what it does not know is shown without colours.
suppress_warnings = ["misc.highlighting_failure"]
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

TO_FOLDER: Final = re.compile(r"(?<=\]\()[^)\s#:]+/(?=\))")


def pages(pattern: str) -> list[str]:
    """The pages that match, without suffix; that of the folder itself comes first."""
    found = (each.relative_to(ROOT).with_suffix("") for each in ROOT.glob(f"{pattern}.md"))
    return sorted(map(str, found), key=lambda each: (not each.endswith("/README"), each))


def entry(page: str) -> str:
    title = TITLES.get(page)
    return f"{title} </{page}>" if title else f"/{page}"


def navigation() -> str:
    """A table of contents for each section, with nothing that does not exist yet."""
    sections = []
    for caption, patterns in NAVIGATION.items():
        if found := dict.fromkeys(page for each in patterns for page in pages(each)):
            listed = map(entry, found)
            sections += [f"```{{toctree}}\n:hidden:\n:caption: {caption}\n", *listed, "```\n"]
    return "\n".join(sections)


def page_of(link: str, folder: Path) -> str:
    """Where a link to a folder leads: to its README, as on a forge, or else to the contents."""
    if not (folder / link).is_dir():
        return link  # Sphinx says that it leads nowhere.
    if (folder / link / "README.md").exists():
        return f"{link}README.md"
    return os.path.relpath(ROOT / f"{root_doc}.md", folder)


def prepare(app: Sphinx, name: str, source: list[str]) -> None:
    folder = (ROOT / name).parent
    source[0] = TO_FOLDER.sub(lambda link: page_of(link[0], folder), source[0])
    if name == root_doc:
        source[0] += "\n" + navigation()


def contents_may_differ(*_: object) -> list[str]:
    """What Sphinx reads again although its file has not changed: new pages are in its contents."""
    return [root_doc]


def setup(app: Sphinx) -> None:
    app.connect("source-read", prepare)
    app.connect("env-get-outdated", contents_may_differ)
