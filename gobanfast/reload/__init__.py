"""Loading rules, last-good fallback, file watching, canary evaluation and hot swap."""
