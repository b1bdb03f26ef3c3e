"""Measurements: never part of the tests, always next to a peer in the same run."""
