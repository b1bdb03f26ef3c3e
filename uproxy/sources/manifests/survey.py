"""Reads manifests once, to say what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from uproxy.core.report.findings import Finding, Severity, finding
from uproxy.sources.manifests.catalog import Catalog
from uproxy.sources.manifests.file import FileContent, read_manifest
from uproxy.sources.manifests.listing import list_files, without_manifests
from uproxy.sources.manifests.source import check_readable, empty_directory, read_file
from uproxy.text.files import printable_name

STDIN: Final = "(stdin)"
"""Stands for standard input where findings name a file."""


class Survey(NamedTuple):
    """What manifests contain."""

    catalog: Catalog
    findings: tuple[Finding, ...]
    """What is wrong or odd with files and directories."""
    files: int
    """How many were read."""
    kinds: Counter[str]
    """How many objects there are of each kind that is used."""
    ignored: int
    """How many objects there are of other kinds."""
    readable: bool
    """Whether everything could be read."""


def survey(paths: Sequence[Path], stdin: bytes | None = None) -> Survey:
    """Read all manifests, and standard input, if there is any. Raises SourceError where a path
    cannot be read."""
    for path in paths:
        check_readable(path)
    roots = [str(path) for path in paths]
    listing = list_files(roots, lambda _: None)
    contents: dict[str, FileContent | None] = {path: read_file(path) for path in listing.files}
    if stdin is not None:
        contents[STDIN] = read_manifest(STDIN, stdin)
    catalog = Catalog()
    catalog.update(contents)
    troubles = (
        finding(Severity.ERROR, reason, file=printable_name(path))
        for path, reason in listing.troubles.items()
    )
    empty = (empty_directory(each) for each in without_manifests(roots, listing))
    read = [each for each in contents.values() if each is not None]
    return Survey(
        catalog=catalog,
        findings=(*troubles, *empty, *catalog.findings()),
        files=len(read),
        kinds=Counter(type(obj).__name__ for obj in catalog.objects()),
        ignored=sum(each.ignored for each in read),
        readable=not listing.unknown and all(each.readable for each in read),
    )
