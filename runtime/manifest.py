"""The manifest of a bundle: what is in it, where it came from, and how a model file is called. See FORMAT.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from satchel.devices.plan import Plan
from satchel.runtime import strict_json
from satchel.runtime.chunks import check_chunks
from satchel.runtime.errors import BundleError
from satchel.runtime.image_tokens import ImageTokens
from satchel.runtime.images import ImagePreparation, check_preparation

SCHEMA_VERSION = 1
"""Raised by one whenever a reader of the version before would misread a bundle."""

FormatName = Literal["coreml", "onnx", "executorch"]


@dataclass(frozen=True)
class TensorSpec:
    """One input, output or state of a model file.

    Attributes:
        name: as the file has it.
        shape: dimensions; a string names a dynamic one, such as "sequence".
        dtype: numpy's name, such as "float16" or "int64".
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class ChunkEntry:
    """One call of the chain that a model of several packages is.

    Attributes:
        path: of the package, relative to the bundle.
        functions: "decode" and, where there is one, "prefill" -> the package's function.
        first_layer: of those that the function holds.
        layers: how many; 0 for a function that only looks up the embedding.
        inputs, outputs, states: its signature, of decode.
    """

    path: str
    functions: dict[str, str]
    first_layer: int
    layers: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[TensorSpec, ...] = ()


@dataclass(frozen=True)
class PartEntry:
    """A model file beside the decoder's.

    Attributes:
        path: relative to the bundle.
        inputs, outputs: its signature.
    """

    path: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class VisionEntry:
    """What a model that sees needs besides its decoder, which takes embeddings instead of ids.

    Attributes:
        encoder: pixels -> rows of features, projected to the decoder's width.
        embedding: ids -> rows of the embedding.
        images: from a picture to pixels.
        tokens: where pictures stand in a prompt.
    """

    encoder: PartEntry
    embedding: PartEntry
    images: ImagePreparation
    tokens: ImageTokens


@dataclass(frozen=True)
class ModelEntry:
    """How an app calls the model file.

    Attributes:
        format: which runtime reads it.
        path: of the file or .mlpackage folder, relative to the bundle; of several packages, that of the first call.
        context_length: tokens that the cache holds, prompt and answer together.
        prefill_length: tokens of one prefill call; 0 where any length up to context_length may be given.
        inputs, outputs, states: the signature (of the decode function where there are two; prefill differs only in
            the length of the sequence). Of several packages: what the chain as a whole takes and gives; what passes
            between them and the caches are in `chunks`.
        options: what the backend of this format needs besides, documented in FORMAT.md.
        chunks: the calls of a model of several packages, in order; None for a single one.
        vision: of a model that sees; None for others.
    """

    format: FormatName
    path: str
    context_length: int
    prefill_length: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[TensorSpec, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    chunks: tuple[ChunkEntry, ...] | None = field(default=None, metadata=strict_json.OPTIONAL)
    vision: VisionEntry | None = field(default=None, metadata=strict_json.OPTIONAL)

    @property
    def paths(self) -> tuple[str, ...]:
        """The model file, or the packages of all chunks, each once, by name."""
        return tuple(sorted({chunk.path for chunk in self.chunks})) if self.chunks else (self.path,)


@dataclass(frozen=True)
class ModelInfo:
    """Where a model came from, and under which terms.

    Attributes:
        model_id: such as "HuggingFaceTB/SmolLM2-135M-Instruct", or the folder's name.
        family: the `model_type`.
        author: as the checkpoint says, or "".
        license: SPDX identifier or name as the checkpoint says; "unknown" where it says nothing.
        license_text: the full text, or "" where it is not known.
        source: what was read, such as "gguf" or "safetensors", with its sha256.
        parameters: count, a tied matrix counted once.
    """

    model_id: str
    family: str
    author: str
    license: str
    license_text: str
    source: str
    parameters: int


@dataclass(frozen=True)
class ChosenWidths:
    """Which bits the linears of the layers got, and why.

    Attributes:
        budget: what they were chosen to meet, in words, such as "at most 80.0 MB"; "" where they were settled.
        average_bits: of a weight of these linears, scales and LUTs counted.
        expected_kl: mean KL divergence to the original in nats a token that rounding them was measured to cost.
        correction: what the sum of the linears' losses was multiplied by, since the whole model lost so much more
            (on SmolLM2 1.4 to 1.9 times); 1 where that was not measured.
        counts: form -> how many linears have it: the bits of a code, with "-symmetric" for blocks without zero points.
    """

    budget: str
    average_bits: float
    expected_kl: float
    correction: float
    counts: dict[str, int]

    def __str__(self) -> str:
        """In words, such as "4 bits: 142 linears, 6 bits: 66; 4.40 bits a weight; expected KL 0.058"."""
        parts = [f"{_in_words(form)}: {n}" for form, n in sorted(self.counts.items())]
        counted = ", ".join([f"{parts[0]} linears", *parts[1:]]) if parts else "no linears"
        kind = "expected KL" if self.correction != 1 else "losses of single linears sum to a KL of"
        told = f"{counted}; {self.average_bits:.2f} bits a weight; {kind} {self.expected_kl:.3g}"
        return f"{told} ({self.budget})" if self.budget else told


def _in_words(form: str) -> str:
    bits, _, symmetric = form.partition("-")
    return f"{bits} bits without zero points" if symmetric else f"{bits} bits"


@dataclass(frozen=True)
class WeightSchemes:
    """How the matrices are stored.

    Attributes:
        scheme: that was asked for: "palette", "int4", "int8", "fp16", "fp32" or "source".
        tensors: canonical name of each matrix -> its scheme, such as "palette4", "int8" or "int4-block32".
        selection: why; None where losses were not measured, and in bundles from before there was one.
    """

    scheme: str
    tensors: dict[str, str]
    selection: ChosenWidths | None = field(default=None, metadata=strict_json.OPTIONAL)


@dataclass(frozen=True)
class TokenRules:
    """What a host must know of token ids besides the tokenizer.

    Attributes:
        vocab_size: length of a row of logits.
        bos_id: id that begins a sequence, or None.
        prepend_bos: whether a plain prompt gets bos_id in front. Chat templates write their own.
        stop_ids: ids that end an answer, rising.
    """

    vocab_size: int
    bos_id: int | None
    prepend_bos: bool
    stop_ids: tuple[int, ...]


@dataclass(frozen=True)
class GenerationDefaults:
    """How to sample where the caller does not say. See runtime/sampling.py for the algorithm.

    Attributes:
        max_new_tokens: length of an answer.
        temperature: divides the logits; 0 is greedy.
        top_k: the k likeliest ids only; 0 keeps all.
        top_p: the fewest ids whose probabilities sum to at least this; 1 keeps all.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle.

    Attributes:
        path: relative to the bundle, with forward slashes.
        bytes: its size.
        sha256: of its content, 64 hexadecimal digits.
    """

    path: str
    bytes: int
    sha256: str


class WrittenManifest:
    """What the manifests of all bundles have in common; FORMAT.md says what each key is for."""

    model: ModelInfo
    plan: Plan
    weights: WeightSchemes
    tools: dict[str, str]
    files: tuple[FileEntry, ...]
    also_for: tuple[str, ...] | None
    schema_version: int

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of all devices that the bundle is for."""
        return (self.plan.device, *(self.also_for or ()))

    @property
    def format(self) -> FormatName:
        """Which runtime reads the bundle."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises BundleError where the parts do not fit."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        value: dict[str, Any] = strict_json.encode(self)
        return value

    def to_bytes(self) -> bytes:
        """The bytes of manifest.json: equal manifests, equal bytes."""
        return strict_json.canonical(self.to_json())

    def with_files(self, files: tuple[FileEntry, ...]) -> Self:
        """The same with other files."""
        return replace(self, files=files)  # type: ignore[type-var]

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Reads manifest.json.

        Raises:
            BundleError: of another schema, or not exactly as FORMAT.md says.
        """
        return cls.from_json(parse_manifest(data))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """What parse_manifest gave; errors as from_bytes has them."""
        manifest = strict_json.decode(cls, value, "manifest.json")
        manifest.check()
        return manifest


def parse_manifest(data: bytes) -> dict[str, Any]:
    """The JSON object of manifest.json, of a schema that is known.

    Raises:
        BundleError: no JSON object, or of another schema.
    """
    value = strict_json.parse(data, "manifest.json")
    version = value.get("schema_version") if isinstance(value, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(
            "the bundle is of an unknown schema", got=version, wanted=SCHEMA_VERSION,
            hint="open it with the Satchel that wrote it, or export it again",
        )  # fmt: skip
    assert isinstance(value, dict)
    return value


@dataclass(frozen=True)
class Manifest(WrittenManifest):
    """manifest.json. The attributes are its keys; FORMAT.md says what each is for.

    Attributes:
        model: where the model came from.
        plan: the device and every choice made for it.
        entry: how the model file is called.
        weights: how the matrices are stored.
        tokens: bos, stop ids and the size of the vocabulary.
        generation: defaults of sampling.
        tools: package -> version that wrote the bundle.
        files: every file but manifest.json and parity.json, by path.
        also_for: further devices that this bundle is for, since their plans are the same but for the reasons.
        schema_version: SCHEMA_VERSION.
    """

    model: ModelInfo
    plan: Plan
    entry: ModelEntry
    weights: WeightSchemes
    tokens: TokenRules
    generation: GenerationDefaults
    tools: dict[str, str]
    files: tuple[FileEntry, ...] = ()
    also_for: tuple[str, ...] | None = field(default=None, metadata=strict_json.OPTIONAL)
    schema_version: int = SCHEMA_VERSION

    @property
    def format(self) -> FormatName:
        """Which runtime reads the bundle."""
        return self.entry.format

    def check(self) -> None:
        """Raises BundleError where the parts do not fit."""
        _check(self)


def check_path(path: str) -> str:
    """Returns `path` if it names a file below the bundle in a way that every system reads alike.

    Raises:
        BundleError: absolute, with "..", a backslash, a drive, or a control character.
    """
    parts = path.split("/")
    bad_part = any(p in ("", ".", "..") or len(p.encode()) > 255 for p in parts)
    if bad_part or any(c in '\\:*?"<>|' or ord(c) < 32 or ord(c) == 127 for c in path):
        raise BundleError("a path points outside the bundle or is not portable", got=repr(path), wanted="a/b.c")
    return str(PurePosixPath(path))


def _check(manifest: Manifest) -> None:
    check_files(manifest.files)
    entry, tokens = manifest.entry, manifest.tokens
    seeing = (entry.vision.encoder.path, entry.vision.embedding.path) if entry.vision else ()
    check_model_paths(manifest.files, (*entry.paths, *seeing))
    if entry.chunks is not None:
        layers = {name.split(".")[1] for name in manifest.weights.tensors if name.startswith("layers.")}
        encoder = f"{entry.vision.encoder.path}/" if entry.vision else "/"
        check_chunks(entry, (f.path for f in manifest.files if not f.path.startswith(encoder)), len(layers))
    if entry.vision is not None:
        check_preparation(entry.vision.images)
        if not 0 <= entry.vision.tokens.id < tokens.vocab_size or entry.vision.tokens.rows < 1:
            raise BundleError("the placeholder of pictures lies outside the vocabulary", got=entry.vision.tokens.id)
    if (entry.format, entry.context_length) != (manifest.plan.format, manifest.plan.context_length):
        raise BundleError("the model entry and the plan disagree", got=(entry.format, entry.context_length))
    if entry.context_length < 1 or entry.prefill_length < 0:
        raise BundleError("a context or prefill length is out of range", got=entry.context_length, wanted=">= 1")
    ids = [*tokens.stop_ids, *([] if tokens.bos_id is None else [tokens.bos_id])]
    if tokens.vocab_size < 1 or any(not 0 <= i < tokens.vocab_size for i in ids):
        raise BundleError("token ids lie outside the vocabulary", got=ids, wanted=f"0..{tokens.vocab_size - 1}")
    if tokens.prepend_bos and tokens.bos_id is None:
        raise BundleError("the manifest wants a bos id in front and names none")


def check_model_paths(files: tuple[FileEntry, ...], paths: Sequence[str]) -> None:
    """Raises BundleError where a model file, or all of a package, is not among the files."""
    for path in map(check_path, paths):
        if not any(f.path == path or f.path.startswith(f"{path}/") for f in files):
            raise BundleError("the model file is not among the files", got=path, hint="export the bundle again")


def check_files(files: tuple[FileEntry, ...]) -> None:
    """Raises BundleError for a path that is listed twice, or may not be, and for impossible sizes and hashes."""
    seen: set[str] = set()
    for entry in files:
        if check_path(entry.path) in ("manifest.json", "parity.json") or entry.path.lower() in seen:
            raise BundleError("a file is listed twice or may not be listed", got=entry.path)
        if entry.bytes < 0 or len(entry.sha256) != 64 or set(entry.sha256) - set("0123456789abcdef"):
            raise BundleError(f"size or sha256 of {entry.path} is impossible", got=(entry.bytes, entry.sha256))
        seen.add(entry.path.lower())
