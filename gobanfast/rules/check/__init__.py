"""Checks of rules that were read: lint, unreachable rules, explanations, differences."""
