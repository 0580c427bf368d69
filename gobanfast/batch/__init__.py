"""Columns in, columns out: old logs read and decided in bulk."""
