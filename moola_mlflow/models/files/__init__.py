"""What models look like on disk: checkpoints, encoder folders, detector folders."""
