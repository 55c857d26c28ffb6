"""Explanations scored on examples that nobody has seen."""
