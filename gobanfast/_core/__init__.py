"""Compiled core: one module a class, C kernels underneath. What is public is exported above."""
