"""Compiled core: one extension module a class over the C kernels; public names are re-exported above."""
