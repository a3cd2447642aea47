"""What devices can do, and what to build for them. Imports nothing else of Satchel, and no torch."""
