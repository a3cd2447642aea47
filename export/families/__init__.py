"""Families of models: one file each. registry.py lists them, apart so that base.py imports none of them."""
