"""How much of what a CPU bundle is off comes from activations rounded to 8 bits.

usage: rounded_activations.py MODEL BUNDLE [--tokens N]

transformers' model with the bundle's own weights, in fp32, says what is right. The same model with the input of every
linear rounded to 8 bits a token, as XNNPACK's qd8 kernels round it (asymmetric, zero kept exact), says what the
rounding alone costs. The bundle should be about as far from the first as the second is; what it is off by more is a
defect of the program. (The two do not agree row by row: codes that flip do so elsewhere.)
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from artifacts import load as load_weights

from satchel.export.reference import Reference
from satchel.export.source import resolve
from satchel.runtime.backends import load_backend
from satchel.runtime.bundle import open_bundle
from satchel.runtime.metrics import kl


def rounded(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """A linear's input float32 [..., channels], each row in 256 steps between its ends."""
    x = inputs[0]
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp_min(1e-12)
    zero = (-128 - low / scale).round().clamp(-128, 127)
    return (((x / scale + zero).round().clamp(-128, 127) - zero) * scale, *inputs[1:])


def main() -> None:
    """Prints mean and largest KL divergence, a line a pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--tokens", type=int, default=16)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    ids = bundle.golden.prompts[0].sequence[: options.tokens]
    backend = load_backend(bundle.folder, bundle.manifest.entry)
    got = np.stack([backend.step(token) for token in ids])
    reference = Reference(resolve(options.model))
    load_weights(reference, options.bundle)
    exact = reference.logits(ids)
    for module in reference.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(rounded)
    for name, other in (("the bundle", got), ("8-bit activations in torch", reference.logits(ids))):
        divergence = kl(exact, other)
        print(f"{name}: KL {divergence.mean():.4f} mean, {divergence.max():.4f} largest, over {len(ids)} tokens")


if __name__ == "__main__":
    main()
