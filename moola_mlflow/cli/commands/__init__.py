"""One file per entry point: each assembles the stages and does nothing else."""
