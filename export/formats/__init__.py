"""Writers of model files: one module a format, each from the same weights and the same decoder."""
