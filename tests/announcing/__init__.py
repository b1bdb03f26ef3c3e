"""A simulated cluster that elects announcers: virtual time, an API server, a wire, and nodes."""
