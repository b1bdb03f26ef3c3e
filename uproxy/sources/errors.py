"""What a source raises where it cannot work at all."""

from __future__ import annotations


class SourceError(Exception):
    """A source that cannot work at all; the message names what to put right."""
