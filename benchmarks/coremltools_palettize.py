"""coremltools' palettizer on the layers' linears of a language model: 4 bits by k-means, nothing else.

usage: coremltools_palettize.py MODEL OUT.safetensors [--group ROWS] [--exact]

One LUT a tensor, or one for each ROWS rows. By default it rounds weights to four decimals before k-means, which is many
times as fast; --exact does not. The embedding and the head are left to us, 8 bits a row, so that linears are compared:
with everything at 4 bits, which is coremltools' default, KL is some nats. A LUT takes 16 values of fp16.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from artifacts import BYTES
from coremltools.optimize.torch.palettization import PostTrainingPalettizer, PostTrainingPalettizerConfig
from safetensors.torch import save_file

from satchel.export.palettize.fit import int8_rows
from satchel.export.reference import Reference
from satchel.export.source import resolve


def settings(group: int, exact: bool) -> PostTrainingPalettizerConfig:
    """4 bits for every torch.nn.Linear."""
    chosen = {"n_bits": 4, "enable_fast_kmeans_mode": not exact}
    if group:
        chosen |= {"granularity": "per_grouped_channel", "group_size": group}
    return PostTrainingPalettizerConfig.from_dict({"module_type_configs": {torch.nn.Linear: chosen}})


def palettize(linears: dict[str, torch.nn.Module], group: int, exact: bool) -> dict[str, torch.Tensor]:
    """The linears' weights, each rounded to its LUT, by name."""
    plain = torch.nn.ModuleDict({name.replace(".", "/"): module for name, module in linears.items()})
    done = PostTrainingPalettizer(plain, settings(group, exact)).compress(num_kmeans_workers=1, inplace=True)
    return {name.replace("/", "."): module.weight.detach().float() for name, module in done.items()}


def stored_bytes(shape: torch.Size, group: int) -> int:
    """4 bits a weight and the LUTs."""
    return int(shape.numel() // 2 + 16 * 2 * (shape[0] // group if group else 1))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--group", type=int, default=0)
    parser.add_argument("--exact", action="store_true")
    options = parser.parse_args()
    with Reference(resolve(options.model)) as reference:
        tables = {n: reference.model.get_parameter(reference._parameters[n]) for n in reference.config.matrix_shapes()
                  if not n.startswith("layers.")}  # fmt: skip
        rounded = {name: int8_rows(table.detach().numpy()) for name, table in tables.items()}
        linears = {n: module for n, module in reference.linears().items() if n.startswith("layers.")}
        weights = palettize(linears, options.group, options.exact)
    sizes = {name: stored_bytes(w.shape, options.group) for name, w in weights.items()}
    sizes |= {name: matrix.stored_bytes for name, matrix in rounded.items()}
    weights |= {name: torch.from_numpy(matrix.dequantize()) for name, matrix in rounded.items()}
    save_file({n: w.contiguous() for n, w in weights.items()}, options.out, metadata={BYTES: json.dumps(sizes)})


if __name__ == "__main__":
    main()
