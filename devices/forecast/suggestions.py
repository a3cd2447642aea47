"""What would fit where a request does not: each suggestion is planned again, so that it is true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from satchel.devices.errors import PlanError
from satchel.devices.forecast.models import relatives
from satchel.devices.forecast.verdict import FITS, Forecast, Request, forecast
from satchel.devices.plan import ModelShape
from satchel.devices.profile import DeviceProfile

CONTEXTS = (16384, 8192, 4096, 2048, 1024, 512, 256)
"""Tried from long to short."""
BITS = (4, 3, 2)
MOST = 6
"""Suggestions that are shown."""
MODELS = 2
MOST_LAYERS = 1024
SCHEMES = ("palette", "int4")


@dataclass(frozen=True)
class Suggestion:
    """A change that makes it fit.

    Attributes:
        kind: "bits", "context", "format", "both" (two of these) or "model".
        words: what to do.
        options: of `satchel preflight` and `satchel export`, beside those that were given.
        request: the whole request, with the change.
        model: another model's name; "" for the same.
        shape: of the model that fits.
        verdict: with the change.
        needed: bytes.
    """

    kind: str
    words: str
    options: str
    request: Request
    model: str
    shape: ModelShape
    verdict: str
    needed: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "kind": self.kind, "words": self.words, "options": self.options, "model": self.model or None,
            "verdict": self.verdict, "needed_bytes": self.needed,
        }  # fmt: skip


def suggest(profile: DeviceProfile, shape: ModelShape, found: Forecast, asked: Request) -> tuple[Suggestion, ...]:
    """What would fit; () where the request fits already.

    One change is tried before two, and a change that needs no entitlement goes before one that does.

    Args:
        profile: of the device.
        shape: of the model.
        found: what the request came to.
        asked: the request as it was made.
    """
    if found.fits:
        return ()
    single = [*_first_each(profile, shape, _bits(found, asked)), *_first_each(profile, shape, _contexts(found, asked))]
    single += _first_each(profile, shape, _formats(profile, found, asked))
    changes = single or _first_each(profile, shape, _both(profile, found, asked))
    models = list(_models(profile, shape, asked))
    return tuple([*changes, *models][:MOST])


def _bits(found: Forecast, asked: Request) -> Iterator[tuple[str, Request]]:
    """Fewer bits, the most first; of the scheme that was planned, then of the other ones."""
    planned = found.plan["weights"]
    for scheme in dict.fromkeys((planned, *SCHEMES)):
        widths = BITS if scheme == "palette" else (4,) if scheme == "int4" else ()
        for bits in widths:
            if scheme != planned or asked.bits is None or bits < asked.bits:
                yield "bits", replace(asked, weights=None if scheme == planned else scheme, bits=bits)


def _contexts(found: Forecast, asked: Request) -> Iterator[tuple[str, Request]]:
    for length in CONTEXTS:
        if length < found.plan.context_length:
            yield "context", replace(asked, context=length)


def _formats(profile: DeviceProfile, found: Forecast, asked: Request) -> Iterator[tuple[str, Request]]:
    for format in profile.formats:
        if format != found.plan.format:
            yield "format", replace(asked, format=format)
            for scheme in SCHEMES:
                if asked.weights is None and scheme != found.plan["weights"]:
                    yield "format", replace(asked, format=format, weights=scheme, bits=None)


def _both(profile: DeviceProfile, found: Forecast, asked: Request) -> Iterator[tuple[str, Request]]:
    """Two changes at once, those to the context last."""
    formats = [found.plan.format, *(f for f in profile.formats if f != found.plan.format)]
    lengths = [length for length in CONTEXTS if length < found.plan.context_length]
    for format, scheme, length in product(formats, SCHEMES, lengths or [found.plan.context_length]):
        for bits in BITS if scheme == "palette" else (4,):
            yield "both", replace(asked, format=format, weights=scheme, bits=bits, context=length)


def _models(profile: DeviceProfile, shape: ModelShape, asked: Request) -> Iterator[Suggestion]:
    """Smaller models, with the same options: the largest ones that fit."""
    fitting = 0
    for model in relatives(shape):
        length = min(asked.context, model.shape.max_position) if asked.context else None
        request = replace(asked, context=length, tokenizer_bytes=0)
        found = _tried(profile, model.shape, request)
        if found is not None:
            yield _suggestion("model", found, model.shape, request, model.name)
            fitting += 1
        if fitting == MODELS:
            return


def _first_each(profile: DeviceProfile, shape: ModelShape, requests: Iterator[tuple[str, Request]]) -> list[Suggestion]:
    """The first request that fits without the entitlement; if there is none, the first that fits with it."""
    entitled: Suggestion | None = None
    for kind, request in requests:
        found = _tried(profile, shape, request)
        if found is None:
            continue
        suggestion = _suggestion(kind, found, shape, request)
        if found.verdict == FITS:
            return [suggestion]
        entitled = entitled or suggestion
    return [entitled] if entitled else []


def _tried(profile: DeviceProfile, shape: ModelShape, request: Request) -> Forecast | None:
    """What a request comes to; None where it cannot be planned or does not fit."""
    try:
        found = forecast(profile, shape, request)
    except PlanError:
        return None
    return found if found.fits else None


def _suggestion(kind: str, found: Forecast, shape: ModelShape, request: Request, model: str = "") -> Suggestion:
    options = [("--format", request.format), ("--weights", request.weights), ("--bits", request.bits)]
    options.append(("--context", request.context))
    words = {
        "bits": f"{request.bits} bits a weight ({found.plan['weights']})",
        "context": f"a context of {found.plan.context_length} tokens",
        "format": f"{found.plan.format} with {found.plan['weights']} weights",
        "both": f"{found.plan.format}, {request.bits} bits ({found.plan['weights']}), "
        f"and a context of {found.plan.context_length} tokens",
        "model": f"{model}, {shape.parameters / 1e9:.2g} billion parameters, with the same options",
    }[kind]
    given = " ".join(f"{name} {value}" for name, value in options if value is not None)
    return Suggestion(kind, words, given, request, model, shape, found.verdict, found.memory.needed)


def largest(profile: DeviceProfile, shape: ModelShape, found: Forecast) -> int:
    """Parameters of the deepest model of this width that fits as it was planned; 0 if not even one layer does.

    It has the shape's embedding and head, and layers like its layers, up to 1024 of them. Format, weights and context
    are those of the plan, since a planner that may choose again takes fewer bits for a larger model.
    """
    settled = dict(found.request.overrides)
    request = replace(
        found.request, format=None if "format" in settled else found.plan.format,
        weights=None if "weights" in settled else found.plan["weights"],
        context=None if "context_length" in settled else found.plan.context_length,
    )  # fmt: skip
    if not _deep(profile, shape, request, 1):
        return 0
    low, high = 1, MOST_LAYERS + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _deep(profile, shape, request, middle) else (low, middle)
    return _layered(shape, low).parameters


def _deep(profile: DeviceProfile, shape: ModelShape, asked: Request, layers: int) -> bool:
    return _tried(profile, _layered(shape, layers), asked) is not None


def _layered(shape: ModelShape, layers: int) -> ModelShape:
    tables = shape.vocab_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    each = max(shape.parameters - tables, 0) / shape.layers
    return replace(shape, layers=layers, parameters=int(tables + each * layers))
