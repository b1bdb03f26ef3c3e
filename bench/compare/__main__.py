"""Start the comparison."""

from bench.compare.cli import main

main(prog_name="python -m bench.compare")
