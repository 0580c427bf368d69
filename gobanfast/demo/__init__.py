"""A day of made-up traffic, and rules for it: what `make demo` shows."""
