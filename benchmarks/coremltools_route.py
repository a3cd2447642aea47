"""The same job with plain coremltools: trace a transformers model, convert it, palettize it to 4 bits.

The comparison for `satchel export`: what a user writes who follows coremltools' guides, with the guides' own choices.
The KV cache is two states, written by slice assignment; a call takes 64 tokens and a mask whose last axis says how many
positions the cache holds after the call. One function only: coremltools makes a second one (decoding token by token)
out of a second trace and a second conversion, so this is the cheaper half of what an app needs. Nothing is calibrated
and nothing is left out; tensors under 2,048 values (the norms) stay fp16, coremltools' default.

    python benchmarks/coremltools_route.py <Hugging Face folder> <out.mlpackage> [--num-kmeans-workers 1]

The last line on stdout is JSON: seconds of each stage.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import coremltools as ct
import coremltools.converters.mil.frontend.torch.ops as torch_ops
import coremltools.optimize.coreml as cto
import numpy as np
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.frontend.torch import register_torch_op
from transformers import AutoModelForCausalLM, PreTrainedModel

TOKENS = 64
CONTEXT = 512
STATES = ("key_cache", "value_cache")


@register_torch_op(torch_alias=["int"], override=True)
def _int(context: torch_ops.TranscriptionContext, node: torch_ops.InternalTorchIRNode) -> None:
    """aten::Int whose constant is an array of one element: numpy 2.4 refuses int() on it (coremltools #2633)."""
    x = torch_ops._get_inputs(context, node, expected=1)[0]
    if x.can_be_folded_to_const() and isinstance(x.val, np.ndarray):
        context.add(mb.const(val=int(x.val.item()), name=node.name), node.name)
    else:
        torch_ops._cast(context, node, int, "int32")


class StateCache:
    """What transformers' attention asks of a cache, over two tensors [layers, 1, kv_heads, CONTEXT, head_dim]."""

    is_compileable = False
    is_sliding = (False,)

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, past: int, end: int) -> None:
        self.keys, self.values, self.past, self.end = keys, values, past, end

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Write TOKENS positions [1, kv_heads, TOKENS, head_dim]; return all positions up to and with them."""
        self.keys[layer, :, :, self.past : self.end] = keys
        self.values[layer, :, :, self.past : self.end] = values
        return self.keys[layer, :, :, : self.end], self.values[layer, :, :, : self.end]

    def get_seq_length(self, layer: int = 0) -> int:
        """Positions held before this call."""
        return self.past


class Stateful(torch.nn.Module):
    """tokens [1, TOKENS], additive mask [1, 1, TOKENS, end] -> logits [1, TOKENS, vocabulary]."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        for name in STATES:
            self.register_buffer(name, torch.zeros(cache_shape(model)))

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Run the tokens that follow the `end - TOKENS` positions in the cache."""
        end = mask.shape[-1]
        past = end - TOKENS
        positions = torch.arange(past, end).unsqueeze(0)
        cache = StateCache(self.key_cache, self.value_cache, past, end)
        return self.model(input_ids, attention_mask=mask, position_ids=positions, past_key_values=cache).logits


def cache_shape(model: PreTrainedModel) -> tuple[int, ...]:
    c = model.config
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    return (c.num_hidden_layers, 1, c.num_key_value_heads, CONTEXT, head_dim)


def load(folder: str) -> Stateful:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return Stateful(model.eval()).eval()


def trace(model: Stateful) -> torch.jit.ScriptModule:
    example = torch.zeros((1, TOKENS), dtype=torch.int32), torch.zeros((1, 1, TOKENS, 2 * TOKENS))
    with torch.no_grad():
        return torch.jit.trace(model, example, check_trace=False)


def convert(traced: torch.jit.ScriptModule, shape: tuple[int, ...]) -> ct.models.MLModel:
    end = ct.RangeDim(lower_bound=TOKENS, upper_bound=CONTEXT, default=TOKENS)
    return ct.convert(
        traced,
        inputs=[
            ct.TensorType("input_ids", (1, TOKENS), np.int32),
            ct.TensorType("mask", (1, 1, TOKENS, end), np.float16),
        ],
        outputs=[ct.TensorType("logits", dtype=np.float16)],
        states=[ct.StateType(ct.TensorType(shape=shape, dtype=np.float16), name=name) for name in STATES],
        minimum_deployment_target=ct.target.iOS18,
        convert_to="mlprogram",
        skip_model_load=True,
    )


def palettize(model: ct.models.MLModel, workers: int) -> ct.models.MLModel:
    config = cto.OpPalettizerConfig(
        mode="kmeans", nbits=4, granularity="per_grouped_channel", group_size=16, num_kmeans_workers=workers
    )
    return cto.palettize_weights(model, cto.OptimizationConfig(global_config=config))


@contextmanager
def stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a Hugging Face folder")
    parser.add_argument("out", help="the .mlpackage to write")
    parser.add_argument("--num-kmeans-workers", type=int, default=1, help="processes for k-means")
    args = parser.parse_args()
    seconds: dict[str, float] = {}
    with stage(seconds, "load"):
        model = load(args.model)
    with stage(seconds, "trace"):
        traced = trace(model)
    with stage(seconds, "convert"):
        converted = convert(traced, cache_shape(model.model))
    with stage(seconds, "palettize"):
        compressed = palettize(converted, args.num_kmeans_workers)
    with stage(seconds, "save"):
        compressed.save(args.out)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
