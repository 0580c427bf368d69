"""Checks of parsed rules: lint, unreachable rules, explanations, differences."""
