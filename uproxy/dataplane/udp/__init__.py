"""UDP: listeners that sort datagrams into flows, and flows that pass them on."""
