"""Models that see: a vision tower with a projector, in front of a decoder that any family may be."""
