"""Batch decisions over columns and access logs."""
