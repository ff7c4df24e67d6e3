"""What to do about runs whose process is gone, and about a damaged store."""
