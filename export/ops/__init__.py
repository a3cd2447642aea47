"""Op sets: what carries out the decoder in torch, in MIL (Core ML) and in ONNX."""
