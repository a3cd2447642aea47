"""What a model is calibrated on, and what is measured over it."""
