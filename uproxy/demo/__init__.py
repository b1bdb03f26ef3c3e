"""What `uproxy demo` serves: a small cluster on loopback addresses, manifests and pods."""
