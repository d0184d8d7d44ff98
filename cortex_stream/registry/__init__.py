"""Model versions on disk: what they are, where they come from, whether they can be trusted."""
