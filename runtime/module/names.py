"""Names that exporter and readers agree on."""

WEIGHTS_KEY = "satchel.weights"
"""Of the table of weights, in the metadata of a Core ML package, an ONNX model and an ExecuTorch program."""

WEIGHTS_METHOD = "satchel_weights"
"""The constant method of an ExecuTorch program that gives it."""
