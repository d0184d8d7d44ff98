"""One request's life, readable from top to bottom."""
