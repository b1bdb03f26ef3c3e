"""Tests of what decides whether a version can be released."""
