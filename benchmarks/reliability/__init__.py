"""What survives? One question a file."""
