"""The guides in docs/guides, followed command by command."""
