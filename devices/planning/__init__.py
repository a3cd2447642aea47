"""How a plan is made: one module a format, and what they share. Every figure comes from devices/rules."""
