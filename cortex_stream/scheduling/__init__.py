"""Who is served next, in whose company, on which runner."""
