"""How fast? One question a file."""
