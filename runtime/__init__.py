"""Opens, checks and runs bundles. Imports `satchel.devices` only, and no torch."""
