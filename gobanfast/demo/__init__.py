"""Demo of `make demo`: a day of invented traffic and rules for it."""
