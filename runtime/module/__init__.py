"""Bundles of traced modules: what their manifests say, and how they are opened, called, inspected and validated."""
