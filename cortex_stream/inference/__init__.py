"""Models at work: tokens in, numbers out."""
