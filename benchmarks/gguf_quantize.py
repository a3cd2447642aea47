"""llama.cpp's own quantizer, through llama-cpp-python.  usage: gguf_quantize.py MODEL.gguf KIND OUT.gguf

KIND is F32, Q4_0, Q4_K_S, Q4_K_M or another of llama.cpp's file types.
"""

from __future__ import annotations

import sys
from ctypes import byref


def main() -> None:
    """Quantizes; one thread, since what is compared is CPU time."""
    from llama_cpp import llama_cpp

    source, kind, out = sys.argv[1:]
    names = (f"LLAMA_FTYPE_MOSTLY_{kind}", f"LLAMA_FTYPE_ALL_{kind}")
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = next(getattr(llama_cpp, name) for name in names if hasattr(llama_cpp, name))
    parameters.nthread, parameters.allow_requantize = 1, kind == "F32"
    if llama_cpp.llama_model_quantize(source.encode(), out.encode(), byref(parameters)):
        sys.exit(f"llama.cpp could not write {kind}")


if __name__ == "__main__":
    main()
