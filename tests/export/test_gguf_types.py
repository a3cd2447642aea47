"""Every type of tensors in a GGUF file is read as gguf-py decodes it, in files that gguf-py and llama.cpp wrote.

What llama.cpp says to a file is for tests/export/families/test_gguf.py, in F32: its kernels for quantized tensors are
compiled for the machine that built them.
"""

import ctypes

import family_gguf
import gguf
import llama_cpp
import numpy as np
import pytest
import torch
from family_gguf import Q
from family_runner import random_model

from satchel.export.calibration.uncompressed import Uncompressed
from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.export.huggingface import load_model
from satchel.export.ops.torch import TorchDecoder

LLAMA = {
    "model_type": "llama", "vocab_size": 265, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.1,
}  # fmt: skip
IDS = [int(i) for i in np.random.default_rng(1).integers(3, 265, 24)]
BY_GGUF = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
BY_LLAMA_CPP = {"Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "Q6_K": "Q6_K"}
"""Type of tensors -> type of files; gguf-py decodes these, but does not make them."""


@pytest.fixture(scope="module")
def model():
    return random_model(LLAMA)


def written(folder, model, kind):
    if kind in BY_GGUF:
        return family_gguf.save(folder / "tiny.gguf", model, Q[kind])
    plain, path = family_gguf.save(folder / "plain.gguf", model), folder / "tiny.gguf"
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{BY_LLAMA_CPP[kind]}")
    options.pure, options.nthread = True, 1
    assert llama_cpp.llama_model_quantize(str(plain).encode(), str(path).encode(), ctypes.byref(options)) == 0
    return path


@pytest.mark.parametrize("kind", [*BY_GGUF, *BY_LLAMA_CPP])
def test_tensors_are_what_gguf_py_decodes(tmp_path, model, kind):
    path = written(tmp_path, model, kind)
    checkpoint, reader = open_checkpoint(path), gguf.GGUFReader(path)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert {kinds[name] for name in kinds if "norm" not in name and "token_embd" not in name} == {kind}
    for tensor in reader.tensors:
        want = gguf.quants.dequantize(np.array(tensor.data), tensor.tensor_type)
        want = want.reshape(tuple(reversed(tensor.shape.tolist())))
        np.testing.assert_array_equal(checkpoint.read(tensor.name), want)
        np.testing.assert_array_equal(checkpoint.read(tensor.name, slice(3, 7)), want[3:7])
    config, tensors = load_family(checkpoint)
    original = model.state_dict()["model.layers.0.self_attn.q_proj.weight"].numpy()  # whose rows the file reorders
    error = np.abs(tensors.read("layers.0.self_attn.q_proj") - original).max()
    assert error <= (0 if kind == "F32" else 0.04), "rows are in the original order"
    with torch.no_grad():
        theirs = load_model(path)(torch.tensor([IDS])).logits[0].numpy()
    np.testing.assert_allclose(TorchDecoder(config, Uncompressed(tensors)).logits(IDS), theirs, atol=1e-4)
    assert theirs.std() > 0.3
