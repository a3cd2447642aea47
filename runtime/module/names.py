"""Names that exporter and readers agree on."""

WEIGHTS_KEY = "satchel.weights"
"""Of the table of weights, in the metadata of a Core ML package, an ONNX model and an ExecuTorch program."""
