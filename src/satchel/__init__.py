"""Satchel: small language models as 4-bit bundles for Core ML, ONNX and ExecuTorch."""
