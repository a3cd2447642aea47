"""Golden data of modules: what the original says in fp32, and what the program says with the bundle's weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from satchel.export.module.compress import restored
from satchel.export.module.model import ModuleModel
from satchel.export.module.program import Inputs
from satchel.export.palettize.store import WeightStore
from satchel.runtime.module.golden import Case, ModuleGolden
from satchel.runtime.module.manifest import ModuleFile


def golden(model: ModuleModel, store: WeightStore, files: Mapping[str, ModuleFile]) -> ModuleGolden:
    """A case for each example of each part that its file has a size for."""
    cases = []
    for name, part in model.parts.items():
        own = restored(part.program, part.weights, store)
        for example in (one for one in part.examples if _fits(files[name], one)):
            sets = {"reference": arrays(part.reference(example)), "weights": arrays(own(example))}
            cases.append(Case(name, arrays(example), sets))
    return ModuleGolden(tuple(cases))


def _fits(file: ModuleFile, example: Inputs) -> bool:
    shapes = {spec.name: spec.shape for spec in file.inputs}
    return all(
        isinstance(wanted, str) or wanted == size
        for name, value in example.items()
        for wanted, size in zip(shapes[name], value.shape, strict=True)
    )


def arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Tensors by name as arrays; of the dtypes that golden data have."""
    return {name: value.detach().contiguous().numpy() for name, value in tensors.items()}
