"""This machine: its interfaces and processors, claims of addresses, what it depends on."""
