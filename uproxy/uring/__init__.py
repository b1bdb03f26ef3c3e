"""io_uring(7) from Python, as a library of its own: it knows nothing of the rest of uproxy."""
