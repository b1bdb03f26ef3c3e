"""`python -m tests.guides PAGE` follows a guide and prints what its commands really show, from
which the page is written. Run it as root, in a network of its own."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests import isolation
from tests.guides.page import ROOT, page
from tests.guides.shell import shell


def main() -> None:
    isolation.own_network()
    read = page(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "examples").symlink_to(ROOT / "examples")
        for file, content in read.files.items():
            (directory / file).write_text(content)
        with shell(directory) as typed:
            for command in read.commands:
                begin = time.monotonic()
                try:
                    typed.follow(command)
                except AssertionError as error:
                    print(f"!!! {error}")
                seconds = time.monotonic() - begin
                code, output = typed.last
                print(f"$ {command.text}\n{output}[{code}, {seconds:.1f} s]")


if __name__ == "__main__":
    main()
