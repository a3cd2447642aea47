"""What an ExecuTorch program is made of: tensors, numbers, calls of operators and of delegates."""

from __future__ import annotations

from dataclasses import dataclass, field

from satchel.export.ops.xnnpack import NO_ID, Blob, XnnGraph


@dataclass(eq=False)
class Tensor:
    """A tensor of the program, outside every delegate.

    Attributes:
        dims: the shape, the longest sequence in it where `dynamic`.
        dtype: numpy's name.
        blob: a constant's bytes; None for everything that is computed.
        lasting: whether it keeps its contents from one call to the next (a cache).
        dynamic: whether one dimension follows the length of the input.
    """

    dims: tuple[int, ...]
    dtype: str = "float32"
    blob: Blob | None = None
    lasting: bool = False
    dynamic: bool = False


@dataclass(eq=False)
class Integer:
    """A number that is found when the program runs."""


@dataclass(eq=False)
class Value:
    """What the decoder passes around: a value of one XNNPACK graph, and its tensor in the program once it has left."""

    dims: tuple[int, ...]
    graph: XnnDelegate | None = None
    id: int = NO_ID
    tensor: Tensor | None = None


@dataclass(frozen=True)
class Kernel:
    """A call of one of ExecuTorch's operators; `out` is what it fills."""

    operator: str
    overload: str
    args: tuple[Tensor | Integer | int | float | bool | None, ...]
    out: Tensor | Integer


@dataclass(eq=False)
class Delegate:
    """A call of another engine, inputs before outputs in `args` where that engine counts them so.

    Attributes:
        backend: the engine's name in ExecuTorch.
        specs: what the engine is told beside the payload, by key.
    """

    args: list[Tensor] = field(default_factory=list)
    backend: str = "XnnpackBackend"
    specs: dict[str, bytes] = field(default_factory=dict)

    def payload(self) -> list[Blob | bytes]:
        """What the engine is given, in pieces that follow each other."""
        raise NotImplementedError

    def named(self) -> dict[str, Blob]:
        """Blobs that the payload asks for by name."""
        return {}


@dataclass(eq=False)
class XnnDelegate(Delegate):
    """A call of XNNPACK; `args` in the order of the graph's external ids.

    Attributes:
        imported: the graph's id of each tensor that was made elsewhere, by the tensor's id().
    """

    graph: XnnGraph = field(default_factory=XnnGraph)
    imported: dict[int, int] = field(default_factory=dict)

    def payload(self) -> list[Blob | bytes]:
        """The graph."""
        return [self.graph.serialize()]

    def named(self) -> dict[str, Blob]:
        """Weights, scales and biases."""
        return self.graph.blobs


Call = Kernel | Delegate
