"""Compares the CPU cost of two revisions of uproxy in one interleaved run."""
