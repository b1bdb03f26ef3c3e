"""Start the benchmark."""

from bench.wire.cli import main

main(prog_name="python -m bench.wire")
