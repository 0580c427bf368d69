"""Online look-ups beside requests; the answer counts for the next request."""
