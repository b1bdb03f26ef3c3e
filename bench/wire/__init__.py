"""Compares how fast uproxy and other proxies relay, on one machine and in one run."""
