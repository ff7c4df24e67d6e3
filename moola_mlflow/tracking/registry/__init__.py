"""The model registry: versions with their evidence, aliases, promotion, lineage."""
