"""Recipes as strict TOML files: the grammar and its reader, and the recipes that ship with Satchel."""
