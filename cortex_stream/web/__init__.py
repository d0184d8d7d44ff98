"""The status pages: what a person and a probe may see."""
