"""One benchmark a file: which load, on which sides, and what it must reach."""
