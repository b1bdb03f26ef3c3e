"""A worker. Only uproxy.control.workers starts it: FD [--no-io-uring] [--log-json]."""

from __future__ import annotations

import sys

# asyncio imports ssl if it can. A worker has no use for TLS, and saves 1.4 MiB without it.
sys.modules["ssl"] = None  # type: ignore[assignment]

from uproxy.dataplane.program import main  # noqa: E402


def run() -> None:
    """Serve until the control process ends."""
    options = sys.argv[2:]
    log_format = "json" if "--log-json" in options else "text"
    main(int(sys.argv[1]), ring="--no-io-uring" not in options, log_format=log_format)


if __name__ == "__main__":
    run()
