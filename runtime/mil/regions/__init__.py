"""Runs of fp32 steps handed to onnxruntime as one graph each, where it is installed and where that pays.

onnx_proto   writes an ONNX model, so that onnxruntime alone is needed
operands     what a lowering sees of values and graphs
lowering     which ops can be handed over; the functions are in elementwise, movement, products and statistics
together     layouts in which several values can be broadcast
choose       which steps go together
session      a graph as the kernel of one step
"""

from satchel.runtime.mil.regions.choose import with_regions
from satchel.runtime.mil.regions.session import KERNELS, available, threads_for

__all__ = ["KERNELS", "available", "threads_for", "with_regions"]
