"""From an outcome to durable records."""
