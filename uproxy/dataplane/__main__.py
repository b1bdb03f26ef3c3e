"""`python -m uproxy.dataplane FD [--no-io-uring]`: a worker, started by uproxy.workers only."""

from __future__ import annotations

import sys

from uproxy.dataplane.worker import main

if __name__ == "__main__":
    main(int(sys.argv[1]), ring="--no-io-uring" not in sys.argv[2:])
