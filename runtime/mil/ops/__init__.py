"""The ops that the interpreter knows, by name. A new one is a function in one of these modules and a line in a dict.

Many ops were defined anew for iOS 16, 17 or 18. One function serves all versions of an op:

- The arguments tell them apart: constexpr_lut_to_dense, constexpr_sparse_to_dense (a shape and packed bits before
  iOS 18), crop_resize (roi, or boxes), non_maximum_suppression (score_threshold, or not), upsample_bilinear
  (half_pixel_centers), gather* (batch_dims), gather* and scatter* (validate_indices; see gather.py), topk (sort,
  return_indices, output_indices_dtype), reduce_argmax, reduce_argmin (output_dtype), gru (reset_after, input_bias).
- The opset does: reshape (0 where the rank changes), clip (alpha below beta).
- More element types is all that is new: the activations with alpha and beta, cast, conv, conv_transpose, inverse, log,
  rsqrt, linear, matmul, batch_norm, instance_norm, l2_norm, layer_norm, local_response_norm, lstm, rnn, resample,
  expand_dims, squeeze, reverse, reverse_sequence, sliding_windows, transpose, reshape_like, slice_by_index,
  slice_by_size, constexpr_cast. Every type is taken in every opset here.
"""

from __future__ import annotations

from satchel.runtime.mil.ops import (
    activation,
    classify,
    constexpr,
    contraction,
    control,
    convolution,
    detection,
    elementwise,
    gather,
    lists,
    movement,
    normalization,
    pooling,
    quantization,
    random,
    rearrange,
    recurrent,
    reduction,
    resize,
    sampling,
    transposed,
)
from satchel.runtime.mil.ops.base import Op

OPS: dict[str, Op] = {
    **activation.OPS,
    **classify.OPS,
    **constexpr.OPS,
    **contraction.OPS,
    **convolution.OPS,
    **detection.OPS,
    **elementwise.OPS,
    **gather.OPS,
    **lists.OPS,
    **movement.OPS,
    **normalization.OPS,
    **pooling.OPS,
    **quantization.OPS,
    **random.OPS,
    **rearrange.OPS,
    **recurrent.OPS,
    **reduction.OPS,
    **resize.OPS,
    **sampling.OPS,
    **transposed.OPS,
}

# What the compiler itself knows how to run, besides OPS.
STRUCTURAL = frozenset({"const", "read_state", "write_state", *control.BLOCK_OPS})
