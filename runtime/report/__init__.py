"""Parity files side by side: what differs between devices, as figures and as a page."""
