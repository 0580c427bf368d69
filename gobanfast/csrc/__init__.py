"""C kernels and their headers; no Python code lives here."""
