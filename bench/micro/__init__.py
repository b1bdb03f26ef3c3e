"""Times single steps, only to compare two revisions on one machine."""
