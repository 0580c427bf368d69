"""Online look-ups outside the request path; a result counts from the client's next request on."""
