"""The shape of a vision tower and its projector.

Canonical tensor names (`{i}` is the layer's number):

    vision.patch_embedding                          [hidden, channels * patch * patch]   a convolution, as a linear
    vision.class_embedding                          [hidden]                             where there is a class token
    vision.position_embedding                       [positions * hidden]                 a row after the other
    vision.pre_norm                                 [hidden]                             before the layers
    vision.layers.{i}.norm1, .norm2                 [hidden]                             before each half
    vision.layers.{i}.q_proj, .k_proj, .v_proj, .out_proj    [hidden, hidden]
    vision.layers.{i}.fc1, .fc2                     [intermediate, hidden], [hidden, intermediate]
    vision.post_norm                                [hidden]                             after the layers
    vision.projector.0, vision.projector.1          [decoder's hidden, ...]              to the decoder's width

Norms are LayerNorms; a bias has its owner's name and `.bias`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]


@dataclass(frozen=True)
class VisionConfig:
    """A vision tower and its projector.

    Attributes:
        family: the `model_type` of the whole model.
        image_size, patch_size, channels: pixels, pixels, and colors.
        hidden_size, layers, heads, intermediate_size: counts; of the layers, those whose results are used.
        norm_eps: epsilon of the norms.
        activation: of the MLPs.
        class_token: whether a row goes before those of the patches.
        keeps_class: whether it is among the features.
        patch_bias: whether the patch embedding has a bias.
        pre_norm, post_norm: whether there is a norm before or after the layers.
        shuffle: how many rows of patches, and columns, become one row of features; 1 for none.
        projector: rows of each of its linears; the last is the decoder's width.
        projector_bias: whether they have biases.
        projector_activation: between them.
        norm: of the kind that op sets know.
    """

    family: str
    image_size: int
    patch_size: int
    channels: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    norm_eps: float
    activation: Activation
    class_token: bool
    keeps_class: bool
    patch_bias: bool
    pre_norm: bool
    post_norm: bool
    shuffle: int
    projector: tuple[int, ...]
    projector_bias: bool
    projector_activation: Activation = "gelu"
    norm: Literal["layer"] = "layer"

    @property
    def grid(self) -> int:
        """Patches along an edge."""
        return self.image_size // self.patch_size

    @property
    def positions(self) -> int:
        """Rows that the layers see."""
        return self.grid**2 + self.class_token

    @property
    def rows(self) -> int:
        """Rows of features."""
        return (self.grid // self.shuffle) ** 2 + (self.class_token and self.keeps_class)

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.hidden_size // self.heads

    def matrix_shapes(self) -> dict[str, tuple[int, int]]:
        """Every matrix by canonical name, in the order of the forward pass, with its shape (rows, columns)."""
        h, f = self.hidden_size, self.intermediate_size
        shapes = {"vision.patch_embedding": (h, self.channels * self.patch_size**2)}
        for i in range(self.layers):
            p = f"vision.layers.{i}"
            shapes |= {f"{p}.{name}": (h, h) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
            shapes |= {f"{p}.fc1": (f, h), f"{p}.fc2": (h, f)}
        columns = h * self.shuffle**2
        for i, rows in enumerate(self.projector):
            shapes[f"vision.projector.{i}"] = (rows, columns)
            columns = rows
        return shapes

    def vector_shapes(self) -> dict[str, tuple[int]]:
        """Every vector by canonical name, with its shape; position embeddings are flat."""
        h = self.hidden_size
        shapes = {"vision.class_embedding": (h,)} if self.class_token else {}
        shapes["vision.position_embedding"] = (self.positions * h,)
        for norm in self._norms():
            shapes |= {norm: (h,), f"{norm}.bias": (h,)}
        for name, (rows, _) in self.matrix_shapes().items():
            if self._biased(name):
                shapes[f"{name}.bias"] = (rows,)
        return shapes

    def _norms(self) -> list[str]:
        of_layers = [f"vision.layers.{i}.{norm}" for i in range(self.layers) for norm in ("norm1", "norm2")]
        before = ["vision.pre_norm"] if self.pre_norm else []
        return [*before, *of_layers, *(["vision.post_norm"] if self.post_norm else [])]

    def _biased(self, name: str) -> bool:
        if name.startswith("vision.layers."):
            return True
        return self.projector_bias if ".projector." in name else self.patch_bias
