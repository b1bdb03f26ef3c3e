"""Text that people write and read: YAML and JSON with the line of every field, and log lines."""
