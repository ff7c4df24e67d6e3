"""Runs whose process died, statuses that the launcher overwrites, and damaged stores."""
