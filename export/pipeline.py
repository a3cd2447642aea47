"""The arrow: checkpoint, family, plan, calibrate, compress, golden data, format, bundle. Each stage is a module."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satchel.devices.plan import ModelShape, Plan
from satchel.devices.planner import make_plan
from satchel.devices.profile import load_device
from satchel.export.bundle import BundleWriter
from satchel.export.calibration.texts import calibration_ids, statistics_for
from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.base import DecoderConfig
from satchel.export.families.registry import load_family
from satchel.export.families.tensors import CanonicalTensors
from satchel.export.formats import write_model
from satchel.export.generation import generation_defaults
from satchel.export.golden import golden, golden_prompts, with_weights
from satchel.export.memory import MemoryPlan, plan_memory
from satchel.export.palettize.compress import compress_layers, compress_model
from satchel.export.palettize.source_codes import check_source, keep_codes
from satchel.export.palettize.spec import Calibration, Recipe, ScaleDtype
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.widths import stored_scheme
from satchel.export.progress import Progress, silent
from satchel.export.source import Source, model_info, resolve
from satchel.export.tokenizer import BundleTokenizer, read_tokenizer, token_rules
from satchel.export.tools import tool_versions
from satchel.runtime.bundle import SUFFIX, Bundle, open_bundle
from satchel.runtime.errors import CheckpointError, OutputError, UsageError
from satchel.runtime.golden import Golden
from satchel.runtime.manifest import GenerationDefaults, Manifest, ModelInfo, TokenRules, WeightSchemes
from satchel.runtime.sizes import parse_size

if TYPE_CHECKING:
    from satchel.export.reference import Reference


@dataclass(frozen=True)
class Job:
    """All that is known before any weight is read: what can be wrong with a request has been found by now."""

    source: Source
    config: DecoderConfig
    tensors: CanonicalTensors
    info: ModelInfo
    tokenizer: BundleTokenizer | None
    rules: TokenRules
    generation: GenerationDefaults
    plans: tuple[Plan, ...]
    output: Path
    overwrite: bool
    memory: MemoryPlan

    def target(self, plan: Plan) -> Path:
        """Where the bundle of a plan goes."""
        return self.output / f"{self.source.name}-{plan.device}{SUFFIX}"


def export(
    model: str | Path,
    devices: str | Sequence[str],
    *,
    format: str | None = None,
    weights: str | None = None,
    context: int | None = None,
    calibration: str | Path | None = None,
    seed: int = 0,
    effort: str = "low",
    output: str | Path = "bundles",
    tokenizer: bool = True,
    overwrite: bool = False,
    max_memory: int | str | None = None,
    progress: Progress = silent,
) -> list[Bundle]:
    """Writes one bundle a device.

    Args:
        model: a Hugging Face folder, a GGUF file, a hub id, or "smollm2".
        devices: names of profiles (`satchel devices`), or paths of your own.
        format: "coreml", "onnx" or "executorch" instead of each device's own.
        weights: "palette", "int4", "int8", "fp16", "fp32" or "source" (a GGUF file's own codes) instead of
            each device's own.
        context: tokens that the cache holds; 1024, or what the model was trained for if that is less.
        calibration: a UTF-8 text to calibrate on instead of text that the model generates.
        seed: of that generated text.
        effort: "low", or "normal": minutes more, for less loss (docs/quantization.md); experimental.
        output: folder for the bundles, made if need be; each is `<model>-<device>.satchel`.
        tokenizer: False exports a model that has none; prompts are then token ids.
        overwrite: replace bundles that exist, each once the new one is complete.
        max_memory: bytes that the export may take, or such as "2GB"; a model that does not fit is read from its files
            whenever it is used, which by default is done where loading it would take half of the machine's memory.
        progress: told what is being done.

    Returns:
        The bundles, in the order of the devices. The same input and options give the same bytes.

    Raises:
        CheckpointError, TokenizerError, DeviceError, PlanError, UsageError, OutputError, MissingPackageError: the
            input or the options are bad, or there is no space; nothing half-written is left.
    """
    names = [devices] if isinstance(devices, str) else list(devices)
    job = _prepare(model, names, format, weights, context, Path(output), tokenizer, overwrite, max_memory)
    text = _read_text(calibration)
    with _work_folder(job.output) as work:
        made = _compress(job, effort, seed, text, work, progress)
        return [_write(job, plan, *made[_recipe(plan, effort)], progress) for plan in job.plans]


def _prepare(
    model: str | Path, devices: list[str], format: str | None, weights: str | None, context: int | None, output: Path,
    with_tokenizer: bool, overwrite: bool, max_memory: int | str | None,
) -> Job:  # fmt: skip
    """Reads configuration, names and tokenizer, and plans for each device."""
    profiles = [load_device(name) for name in devices]
    if not profiles or len({profile.name for profile in profiles}) != len(profiles):
        raise UsageError("each device is named once", got=devices or "none", hint="see `satchel devices`")
    source = resolve(model)
    checkpoint = open_checkpoint(source.path)
    config, tensors = load_family(checkpoint)
    memory = plan_memory(config, None if max_memory is None else parse_size(max_memory, "--max-memory"))
    tokenizer = read_tokenizer(checkpoint, config) if with_tokenizer else None
    rules = tokenizer.rules if tokenizer else token_rules(checkpoint, config)
    config = dataclasses.replace(config, bos_token_id=rules.bos_id, eos_token_ids=rules.stop_ids)
    info = model_info(source, checkpoint, config)
    shape = _shape(config, info.parameters)
    plans = [make_plan(p, shape, format=format, weights=weights, context=context) for p in profiles]
    check_source(tensors, config, plans)
    defaults = generation_defaults(checkpoint.generation_config)
    job = Job(source, config, tensors, info, tokenizer, rules, defaults, tuple(plans), output, overwrite, memory)
    for plan in plans:
        if job.target(plan).exists() and not overwrite:
            hint = "pass --overwrite, or another --output"
            raise OutputError("the bundle exists already", got=job.target(plan), hint=hint)
    return job


def _shape(config: DecoderConfig, parameters: int) -> ModelShape:
    """What a plan needs to know."""
    return ModelShape(
        layers=config.layers, hidden_size=config.hidden_size, heads=config.heads, kv_heads=config.kv_heads,
        head_dim=config.head_dim, intermediate_size=config.intermediate_size, vocab_size=config.vocab_size,
        parameters=parameters, max_position=config.max_position, tied_embeddings=config.tied_embeddings,
    )  # fmt: skip


def _recipe(plan: Plan, effort: str) -> Recipe:
    """The recipe of a plan; plans that differ in nothing that matters to the weights get equal ones."""
    scheme = plan["weights"]
    if scheme == "palette":
        return Recipe(
            weights="palette",
            lut_groups="rows16" if plan["lut_groups"] == "rows16" else "tensor",
            wide=("k_proj", "v_proj") if plan["kv_weights"] == "int8" else (),
            effort=effort,  # type: ignore[arg-type]  # Recipe checks it
        )
    if scheme == "int4":
        xnnpack = plan["scale_dtype"] == "bfloat16"
        dtype: ScaleDtype = "bfloat16" if xnnpack else "float16"
        return Recipe(weights="int4", symmetric=xnnpack, scale_dtype=dtype, effort=effort)  # type: ignore[arg-type]
    return Recipe(weights=scheme)  # type: ignore[arg-type]  # Recipe checks it


def _read_text(path: str | Path | None) -> str | None:
    """A calibration text."""
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the calibration text cannot be read", got=error, wanted="a UTF-8 text file") from error


def _work_folder(output: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder for the compressed weights, on the disk that the bundles go to."""
    beside = next(p for p in (output, *output.absolute().parents) if p.is_dir())
    try:
        return tempfile.TemporaryDirectory(prefix=".satchel-work-", dir=beside)
    except OSError as error:
        raise OutputError("no folder to work in", got=error, hint="choose another --output") from error


def _compress(
    job: Job, effort: str, seed: int, text: str | None, work: str, progress: Progress
) -> dict[Recipe, tuple[WeightStore, Golden]]:
    """Each distinct recipe once: the weights, and the golden data of the reference and of these weights."""
    from satchel.export.reference import Reference  # imports torch

    recipes = list(dict.fromkeys(_recipe(plan, effort) for plan in job.plans))
    stores = {recipe: WeightStore(Path(work) / str(number)) for number, recipe in enumerate(recipes)}
    prompts = golden_prompts(job.config, job.tokenizer, min(plan.context_length for plan in job.plans))
    progress("Loading the reference model", 0, 1)
    with Reference(job.source, streamed=job.memory.streamed) as reference:
        progress("Loading the reference model", 1, 1)
        if not reference.streamed:  # else a pass takes long, and every tensor that is read is looked at
            _check_finite(reference.logits(prompts[0].ids), job.tensors)
        answers = golden(reference, prompts, progress=progress)
        curved = {recipe: store for recipe, store in stores.items() if recipe.curved}
        if curved:
            _compress_curved(job, reference, Calibration(48, 256, seed=seed), text, curved, Path(work), progress)
        simple = {recipe: store for recipe, store in stores.items() if not recipe.curved}
        wanted = any(recipe.calibrated for recipe in simple)
        statistics = statistics_for(reference, job.tokenizer, Calibration(seed=seed), text, progress) if wanted else {}
        for recipe, store in simple.items():
            if recipe.weights == "source":
                keep_codes(job.tensors, job.config, store, progress)
                continue
            compress_model(
                job.tensors.read, job.config, statistics, recipe, store, workers=job.memory.workers, progress=progress
            )
        return {recipe: (store, with_weights(answers, reference, store, progress)) for recipe, store in stores.items()}


def _compress_curved(
    job: Job, reference: Reference, calibration: Calibration, text: str | None,
    stores: dict[Recipe, WeightStore], work: Path, progress: Progress,
) -> None:  # fmt: skip
    """Fills the stores of all recipes that want the curvature, layer by layer from the last to the first."""
    from satchel.export.calibration.fisher import curvatures  # imports torch
    from satchel.export.calibration.uncompressed import Uncompressed

    ids = calibration_ids(reference, job.tokenizer, calibration, text, progress)
    layers = curvatures(job.config, Uncompressed(job.tensors), ids, work, seed=calibration.seed, progress=progress)
    curved = (found for _, found in layers)
    compress_layers(job.tensors.read, job.config, curved, stores, workers=job.memory.workers, progress=progress)


def _check_finite(logits: np.ndarray, tensors: CanonicalTensors) -> None:
    """Finds the tensor to blame before anything is computed from a model that says NaN."""
    if np.isfinite(logits).all():
        return
    for name in tensors.names():
        tensors.read(name)  # raises for NaN and infinity
    raise CheckpointError("the reference model answers with NaN or infinity", hint="its weights overflow in fp32")


def _write(job: Job, plan: Plan, store: WeightStore, answers: Golden, progress: Progress) -> Bundle:
    """One bundle."""
    with BundleWriter(job.target(plan), overwrite=job.overwrite, needed_bytes=_estimate(store)) as writer:
        entry = write_model(writer.folder, store, job.config, plan, job.info, progress)
        for name, content in (job.tokenizer.files(entry.format) if job.tokenizer else {}).items():
            (writer.folder / name).write_bytes(content)
        answers.write(writer.folder / "golden")
        schemes = {name: stored_scheme(plan, store.matrix(name)) for name in job.config.matrix_shapes()}
        manifest = Manifest(
            model=job.info, plan=plan, entry=entry, weights=WeightSchemes(plan["weights"], schemes), tokens=job.rules,
            generation=job.generation, tools=tool_versions(plan.format),
        )  # fmt: skip
        return open_bundle(writer.finish(manifest), verify=False)


def _estimate(store: WeightStore) -> int:
    """Bytes that a bundle needs at the least: those of the compressed weights."""
    return sum(path.stat().st_size for path in store.folder.iterdir())
