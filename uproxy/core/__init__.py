"""Values and functions: no await, clock, randomness, sockets or logging in here."""
