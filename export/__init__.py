"""Turns a checkpoint into bundles: checkpoint, family, palettize, plan, decoder, format, bundle."""
