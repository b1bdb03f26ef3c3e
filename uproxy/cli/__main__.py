"""`python -m uproxy.cli`, the same as `uproxy`."""

from __future__ import annotations

from uproxy.cli import main

if __name__ == "__main__":
    main()
