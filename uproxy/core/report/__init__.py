"""What the program says about itself: status, health, Events, telemetry."""
