"""Settings, and how they are written: flags, UPROXY_* variables and the configuration file."""
