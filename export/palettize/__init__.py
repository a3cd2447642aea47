"""From full-precision matrices to 4-bit palettes and their relatives, with the statistics that weigh them."""
