"""A run's events on their way to the store: journal on disk, outbox, replay."""
