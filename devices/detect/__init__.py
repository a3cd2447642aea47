"""Finds out what this machine, or an attached Android phone, is, and says it as a profile."""
