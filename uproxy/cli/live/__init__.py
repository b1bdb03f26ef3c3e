"""Lists that change on a terminal, and the keys by which people move in them."""
