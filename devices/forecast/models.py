"""Shapes of models that people put on devices (models.toml), for suggestions and for the published figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from satchel.devices.errors import DeviceError
from satchel.devices.forecast.constants import checked, entries
from satchel.devices.plan import ModelShape
from satchel.devices.strict_toml import Field

FILE = Path(__file__).parent / "models.toml"
COUNTS = (
    "layers", "hidden_size", "heads", "kv_heads", "head_dim", "intermediate_size", "vocab_size", "parameters",
    "max_position",
)  # fmt: skip


@dataclass(frozen=True)
class KnownModel:
    """A model whose shape is known.

    Attributes:
        name: such as "Llama-3.2-1B".
        family: what one may choose between, such as "llama3".
        shape: its counts.
    """

    name: str
    family: str
    shape: ModelShape


def read_models(path: Path) -> tuple[KnownModel, ...]:
    """The models of a file, as it lists them.

    Raises:
        DeviceError: it cannot be read, or has a key or value that is not known, or a name twice.
    """
    fields = {name: Field("whole", "a count above 0", least=1, most=1e13) for name in COUNTS}
    texts = {"name": Field("text", "the model's name"), "family": Field("text", "what one may choose between")}
    found = []
    for entry in entries(path, "model"):
        entry = dict(entry)
        tied = entry.pop("tied_embeddings", None)
        if not isinstance(tied, bool):
            raise DeviceError(f"{path.name}: 'tied_embeddings'", got=repr(tied), wanted="true or false")
        values = checked(entry, texts | fields, path.name)
        name, family = values.pop("name"), values.pop("family")
        found.append(KnownModel(name, family, ModelShape(**values, tied_embeddings=tied)))
    names = [model.name for model in found]
    if len(set(names)) != len(names):
        raise DeviceError(f"names in {path.name}", got=names, wanted="each once")
    return tuple(found)


@cache
def known_models() -> tuple[KnownModel, ...]:
    """The models that come with Satchel."""
    return read_models(FILE)


def known_model(name: str) -> KnownModel:
    """One of them by name; DeviceError with the known ones otherwise."""
    for model in known_models():
        if model.name == name:
            return model
    raise DeviceError("unknown model", got=name, wanted=", ".join(m.name for m in known_models()))


def relatives(shape: ModelShape) -> tuple[KnownModel, ...]:
    """Models that are smaller than a shape, those of its own family first, each kind from large to small."""
    family = next((m.family for m in known_models() if m.shape.parameters == shape.parameters), "")
    smaller = [m for m in known_models() if m.shape.parameters < shape.parameters]
    return tuple(sorted(smaller, key=lambda m: (m.family != family, -m.shape.parameters)))
