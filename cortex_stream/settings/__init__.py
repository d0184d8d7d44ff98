"""Everything that can be set, read once from the environment."""
