"""Weights read back out of model files, one module a format, to show that a file holds what it should."""
