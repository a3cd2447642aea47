"""The vision encoder in each other op set gives what it gives in torch, which test_encoder.py holds to transformers."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from tiny_llama import MemoryWeights

from satchel.export.formats import coreml_vision, onnx_vision
from satchel.export.formats.coreml_settings import Settings
from satchel.export.formats.executorch_program import Method
from satchel.export.formats.pte import write_pte
from satchel.export.ops.onnx_graph import ExternalData, GraphBuilder
from satchel.export.palettize.spec import Recipe
from satchel.export.palettize.tensors import PlainTensor
from satchel.export.progress import silent
from satchel.export.vision.config import VisionConfig
from satchel.export.vision.encoder import encoder
from satchel.export.vision.executorch import ExecutorchVisionOps
from satchel.export.vision.torch import features
from satchel.export.vision.weights import compress_vision_matrix
from satchel.runtime.backends.coreml_runners import Interpreter
from satchel.runtime.backends.executorch import Native
from satchel.runtime.manifest import ModelEntry, ModelInfo
from satchel.runtime.mil import Watch

INFO = ModelInfo("tiny", "llava", "", "", "", "", 1)
COMMON = {
    "image_size": 30, "patch_size": 7, "channels": 3, "hidden_size": 32, "layers": 2, "heads": 2,
    "intermediate_size": 48, "norm_eps": 1e-5, "projector_bias": True,
}  # fmt: skip
CLIP = VisionConfig(
    family="llava", activation="quick_gelu", class_token=True, keeps_class=False, patch_bias=False, pre_norm=True,
    post_norm=False, shuffle=1, projector=(64, 64), projector_activation="gelu", **COMMON,
)  # fmt: skip
SIGLIP = VisionConfig(
    family="smolvlm", activation="gelu_tanh", class_token=False, keeps_class=False, patch_bias=True, pre_norm=False,
    post_norm=True, shuffle=2, projector=(64,), **COMMON,
)  # fmt: skip


def weights(config, recipe):
    """Random; as `recipe` compresses them, with the values that are meant."""
    random = np.random.Generator(np.random.PCG64(3))
    matrices = {
        name: compress_vision_matrix(name, (random.normal(size=s) / s[1] ** 0.5).astype(np.float32), None, recipe)
        for name, s in config.matrix_shapes().items()
    }
    vectors = {name: random.normal(size=s).astype(np.float32) for name, s in config.vector_shapes().items()}
    return MemoryWeights(matrices, vectors)


def in_onnx(folder, given, config, pixels):
    path = folder / "vision.onnx"
    with (folder / "model.onnx.data").open("wb") as stream:
        graph = GraphBuilder(ExternalData(folder / "model.onnx.data", stream))

        class Plan:
            def get(self, role, default):
                return "1"

        outputs = onnx_vision._vision(graph, given, config, Plan())
    path.write_bytes(ir.serde.serialize_model(graph.model(outputs, {})).SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"pixel_values": pixels})[0]


def in_mil(layout):
    def run(folder, given, config, pixels):
        settings = Settings("iOS18", layout, np.float32, {}, "all", 1, "shared")
        coreml_vision.write_encoder(folder, given, config, settings, INFO)
        run = Interpreter(folder / "vision.mlpackage", "fp32", None, None, Watch())
        return np.stack([run("main", {"pixelValues": tile[None]})["imageFeatures"][0] for tile in pixels])

    return run


def in_executorch(folder, given, config, pixels):
    ops = ExecutorchVisionOps(config, given, int8_activations=False)
    features = ops.leave(encoder(ops, config))
    method = Method("vision_encoder", ops.calls, [ops.pixels], [features])
    write_pte(folder / "model.pte", [method], [], silent)
    run = Native(folder, ModelEntry("executorch", "model.pte", 1, 0, (), ()), None, ["vision_encoder"])
    return np.concatenate([run.run("vision_encoder", np.ascontiguousarray(tile[None])) for tile in pixels])


@pytest.mark.parametrize("run", [in_onnx, in_mil("plain"), in_mil("channels_first"), in_executorch])
@pytest.mark.parametrize("config", [CLIP, SIGLIP])
def test_features(tmp_path, config, run):
    """A picture whose edge is no multiple of the patch's: what is over is left out."""
    given = weights(config, Recipe(weights="fp32", widths=(8,)))
    assert all(isinstance(m, PlainTensor) for m in given.matrices.values())
    pixels = np.random.Generator(np.random.PCG64(4)).normal(size=(2, 3, 30, 30)).astype(np.float32)
    wanted = features(config, given, pixels)
    assert wanted.shape == (2, config.rows, 64)
    np.testing.assert_allclose(run(tmp_path, given, config, pixels), wanted, atol=1e-4)


def test_what_a_recipe_makes_of_a_tower():
    """Bits of their own where the text model's are chosen by loss in text; pixels and odd widths stay floats."""
    w = np.random.Generator(np.random.PCG64(5)).normal(size=(32, 32)).astype(np.float32)
    assert compress_vision_matrix("vision.layers.0.fc1", w, None, Recipe(widths=(4,))).bits == 4
    from satchel.export.palettize.spec import Budget

    several = Recipe(widths=(3, 4, 6), budget=Budget(average_bits=4.0), effort="normal")
    assert compress_vision_matrix("vision.layers.0.fc1", w, None, several).bits == 6
    for name, columns in (("vision.patch_embedding", 32), ("vision.projector.0", 30)):
        found = compress_vision_matrix(name, w[:, :columns], None, Recipe(widths=(4,)))
        assert found.values.dtype == np.float16
