"""The vision encoder, written once over any op set: pixels -> rows of features of the decoder's width."""

from __future__ import annotations

from typing import Protocol, TypeVar

from satchel.export.vision.config import Activation, VisionConfig

T = TypeVar("T")


class VisionOps(Protocol[T]):
    """What a vision tower is made of, beside what a decoder is made of too."""

    def patches(self, name: str) -> T:
        """The pixels given to this op set, cut into patches, each by the linear `name`; a row a patch."""
        ...

    def placed(self, x: T, name: str, first: str | None) -> T:
        """x plus the table `name`, a row for each; before that a row `first` goes in front, where there is one."""
        ...

    def norm(self, x: T, name: str) -> T:
        """LayerNorm over the channels."""
        ...

    def linears(self, x: T, names: list[str]) -> list[T]:
        """Linears over the same input, each with its bias if there is one."""
        ...

    def attend(self, q: T, k: T, v: T, name: str) -> T:
        """Attention of every row to every row, heads joined."""
        ...

    def activate(self, x: T, kind: Activation, name: str) -> T:
        """An activation."""
        ...

    def add(self, x: T, y: T) -> T:
        """The residual stream plus what is added to it."""
        ...

    def without_first(self, x: T) -> T:
        """All rows but the first."""
        ...

    def shuffled(self, x: T, factor: int) -> T:
        """Squares of factor x factor neighbouring patches as one row, their channels joined row by row."""
        ...


def encoder(ops: VisionOps[T], config: VisionConfig) -> T:
    """Pixels -> features."""
    x = ops.patches("vision.patch_embedding")
    x = ops.placed(x, "vision.position_embedding", "vision.class_embedding" if config.class_token else None)
    x = ops.norm(x, "vision.pre_norm") if config.pre_norm else x
    for i in range(config.layers):
        x = layer(ops, config, x, f"vision.layers.{i}")
    x = ops.norm(x, "vision.post_norm") if config.post_norm else x
    x = ops.without_first(x) if config.class_token and not config.keeps_class else x
    return projector(ops, config, ops.shuffled(x, config.shuffle) if config.shuffle > 1 else x)


def layer(ops: VisionOps[T], config: VisionConfig, x: T, p: str) -> T:
    """Attention, then an MLP, each behind a norm and added to the residual stream."""
    q, k, v = ops.linears(ops.norm(x, f"{p}.norm1"), [f"{p}.{name}_proj" for name in "qkv"])
    (attended,) = ops.linears(ops.attend(q, k, v, f"{p}.attention"), [f"{p}.out_proj"])
    x = ops.add(x, attended)
    (inner,) = ops.linears(ops.norm(x, f"{p}.norm2"), [f"{p}.fc1"])
    (outer,) = ops.linears(ops.activate(inner, config.activation, f"{p}.activated"), [f"{p}.fc2"])
    return ops.add(x, outer)


def projector(ops: VisionOps[T], config: VisionConfig, x: T) -> T:
    """Linears with an activation between them."""
    for i in range(len(config.projector)):
        x = x if i == 0 else ops.activate(x, config.projector_activation, f"vision.projector.activated.{i}")
        (x,) = ops.linears(x, [f"vision.projector.{i}"])
    return x
