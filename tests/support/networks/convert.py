"""Converts the networks with coremltools and saves them, once for all test processes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

logging.getLogger("coremltools").setLevel(logging.ERROR)
import coremltools as ct  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.frontend.torch.ops import _get_inputs  # noqa: E402
from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op  # noqa: E402
from filelock import FileLock  # noqa: E402

from networks import NETWORKS  # noqa: E402
from networks.base import Network  # noqa: E402

PRECISIONS = {"fp32": ct.precision.FLOAT32, "fp16": ct.precision.FLOAT16}


@register_torch_op(torch_alias=["int"], override=True)
def _int(context: Any, node: Any) -> None:
    """coremltools 9's own fails on a constant of one element under numpy 2.4 (apple/coremltools issue 2633)."""
    (x,) = _get_inputs(context, node, expected=1)
    if x.can_be_folded_to_const():
        context.add(mb.const(val=int(np.asarray(x.val).item()), name=node.name))
    else:
        x = mb.squeeze(x=x) if x.rank else x
        context.add(mb.cast(x=x, dtype="int32", name=node.name))


def package(folder: Path, name: str, precision: str) -> Path:
    """The saved package of a network, its types those of `precision`."""
    path = folder / f"{name.replace(' ', '-').replace(',', '')}-{precision}.mlpackage"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            convert(NETWORKS[name], precision).save(str(path))
    return path


def convert(network: Network, precision: str) -> Any:
    """A network as coremltools' model."""
    options = dict(network.options())
    if not network.options or "inputs" not in options:
        options["inputs"] = [_tensor(name, a) for name, a in network.calls()[0].items()]
    if "states" in options or network.target in ("iOS18",):
        options.setdefault("states", None)
    target = getattr(ct.target, network.target)
    model = ct.convert(
        _handed_over(network),
        convert_to="mlprogram",
        minimum_deployment_target=target,
        compute_precision=PRECISIONS[precision],
        skip_model_load=True,
        **{k: v for k, v in options.items() if v is not None},
    )
    return network.compress(model) if network.compress else model


def _handed_over(network: Network) -> Any:
    """The module as the converter takes it."""
    module = network.module()
    example = tuple(torch.from_numpy(a.copy()) for a in network.calls()[0].values())
    if network.route == "script":
        return torch.jit.script(module)
    if network.route == "export":
        return torch.export.export(module, example).run_decompositions({})
    with torch.no_grad():
        return torch.jit.trace(module, example, check_trace=False)


def _tensor(name: str, array: np.ndarray) -> Any:
    return ct.TensorType(name, array.shape, array.dtype.type)
