"""This machine: its interfaces and processors, claims of addresses, and the addresses that it
cannot do without."""
