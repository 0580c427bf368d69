"""Slow, obvious references; never a copy of what they check."""
