"""Model versions: log with evidence, find, promote, trace to their run."""
