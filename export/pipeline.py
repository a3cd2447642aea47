"""The arrow: checkpoint, family, plan, calibrate, compress, golden data, format, bundle. Each stage is a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from satchel.devices.plan import Plan
from satchel.export.bundle import BundleWriter
from satchel.export.finished import Finished
from satchel.export.formats import vision as vision_formats
from satchel.export.formats import write_model
from satchel.export.golden_layers import check_layers
from satchel.export.job import Job, Model, make_job
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.widths import stored_scheme
from satchel.export.parallel import THREADS, open_workers, parse_place
from satchel.export.progress import Progress, silent
from satchel.export.recipe import make_wishes
from satchel.export.recipes.recipe_file import load_recipe
from satchel.export.tools import tool_versions
from satchel.export.work import work_folder
from satchel.runtime.bundle import Bundle, open_bundle
from satchel.runtime.errors import UsageError
from satchel.runtime.manifest import Manifest, ModelEntry, VisionEntry, WeightSchemes

if TYPE_CHECKING:
    from satchel.export.weights import Compressed


def export(
    model: str | Path,
    devices: str | Sequence[str],
    *,
    format: str | None = None,
    weights: str | None = None,
    effort: str | None = None,
    bits: int | None = None,
    max_size: str | int | None = None,
    max_kl: float | None = None,
    recipe: str | Path | None = None,
    context: int | None = None,
    calibration: str | Path | None = None,
    seed: int = 0,
    output: str | Path = "bundles",
    work: str | Path | None = None,
    tokenizer: bool = True,
    overwrite: bool = False,
    max_memory: int | str | None = None,
    parallel: str = THREADS,
    overrides: Mapping[str, str] | None = None,
    golden_layers: bool = False,
    progress: Progress = silent,
) -> list[Bundle]:
    """Writes a bundle for each device, or for each group of devices whose plans are the same.

    Args:
        model: a Hugging Face folder, a GGUF file, a hub id, or "smollm2".
        devices: names of profiles (`satchel devices`), of groups such as "ios", or paths of your own.
        format: "coreml", "onnx" or "executorch" instead of each device's own.
        weights: "palette", "int4", "int8", "fp16", "fp32" or "source" instead of each device's own.
        effort: "low", in a minute for a model of 135 million weights; "normal", some minutes more for far less loss,
            and what it is by default; "high", for the least (docs/quantization.md).
        bits: of every linear, instead of a choice among several widths by what each was measured to cost.
        max_size: of a bundle, such as "1.2GB": the least loss within it.
        max_kl: mean KL divergence to the reference in nats a token: the fewest bytes within it.
        recipe: such as "smallest", or the path of your own TOML file (export/recipes/README.md); other arguments add
            only what it leaves open.
        context: tokens that the cache holds; 1024, or what the model was trained for if that is less.
        calibration: a UTF-8 text to calibrate on instead of text that the model generates and that ships with Satchel.
        seed: of that generated text.
        output: folder for the bundles, made if need be; each is `<model>-<device>.satchel`, named after its first.
        work: folder for finished steps, kept for further exports; by default one beside the bundles, which goes when
            they are complete. A run that was killed goes on from what lies there.
        tokenizer: False exports a model that has none; prompts are then token ids.
        overwrite: replace bundles that exist, each once the new one is complete.
        max_memory: bytes that the export may take, or such as "2GB"; a model that does not fit is read from its files
            whenever it is used, which by default is done where loading it would take half of the machine's memory.
        parallel: "threads"; or "dask" or "ray", a cluster that is running, which then works on single matrices; with
            its address where its own settings do not name it, such as "dask=tcp://host:8786".
        overrides: role -> value, choices of the plans that are settled so (`satchel plan` lists them).
        golden_layers: also keep what the reference has behind each layer, so that `satchel parity` can name the layer
            where a device parts from it; ONNX and Core ML.
        progress: told what is being done.

    Returns:
        The bundles, in the order of their first devices; a manifest's `devices` says whom each is for. The same input
        and options give the same bytes.

    Raises:
        CheckpointError, TokenizerError, DeviceError, PlanError, UsageError, OutputError, MissingPackageError: the
            input or the options are bad, or there is no space; nothing half-written is left.
    """
    read = None if recipe is None else load_recipe(recipe)
    wishes = make_wishes(effort, bits=bits, max_size=max_size, max_kl=max_kl, weights=weights, recipe=read)
    place = parse_place(parallel)
    names = [devices] if isinstance(devices, str) else list(devices)
    job = make_job(
        model, names, wishes, format=format, context=context, output=Path(output), tokenizer=tokenizer,
        overwrite=overwrite, max_memory=max_memory, overrides=overrides,
    )  # fmt: skip
    if golden_layers:
        check_layers(job)
    text = read_text(calibration)
    folder = work_folder(work, job.output, progress)
    folder.clear_remains()
    finished = Finished(folder, job, seed, text, *(["golden layers"] if golden_layers else []))
    finished.check()
    limit = None if max_memory is None else job.memory.workers
    with open_workers(place, job.memory.workers, limit) as workers, folder:
        finished.check()  # again, since an export that had the folder may have written one meanwhile
        from satchel.export.weights import Setting, compressed_weights  # imports torch

        setting = Setting(seed, text, job.memory.streamed, workers, progress)
        made = compressed_weights(job, folder, setting)
        if golden_layers:
            made = {recipe: _with_layers(job, each) for recipe, each in made.items()}
        bundles = [
            _read(job, plan) if finished.has(plan) else _write(job, plan, made[recipe], finished, progress)
            for plan, recipe in zip(job.plans, job.recipes, strict=True)
        ]
        if folder.keep:  # one that goes takes the notes along, all at once
            finished.forget()
        return bundles


def _with_layers(job: Job, made: Compressed) -> Compressed:
    """The same with golden data of the layers."""
    from satchel.export.golden_layers import golden_layers  # imports torch

    layers = golden_layers(job, made.golden, made.store)
    return replace(made, golden=replace(made.golden, layers=layers))


def read_text(path: str | Path | None) -> str | None:
    """A calibration text.

    Raises:
        UsageError: it cannot be read.
    """
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the calibration text cannot be read", got=error, wanted="a UTF-8 text file") from error


def _read(job: Job, plan: Plan) -> Bundle:
    """A bundle that is finished."""
    target = job.target(plan)
    BundleWriter(target).clear_remains()
    return open_bundle(target, verify=False)


def _write(job: Job, plan: Plan, made: Compressed, finished: Finished, progress: Progress) -> Bundle:
    """One bundle."""
    model, store = job.model, made.store
    with BundleWriter(job.target(plan), overwrite=job.overwrite, needed_bytes=_estimate(store)) as writer:
        entry = _write_files(writer.folder, model, store, plan, progress, made.golden.layers is not None)
        for name, content in (model.tokenizer.files(entry.format) if model.tokenizer else {}).items():
            (writer.folder / name).write_bytes(content)
        made.golden.write(writer.folder / "golden")
        names = [*model.config.matrix_shapes(), *(model.vision.config.matrix_shapes() if model.vision else ())]
        schemes = {name: stored_scheme(plan, store.matrix(name)) for name in names}
        chosen = made.selection.summary() if made.selection else None
        manifest = Manifest(
            model=model.info, plan=plan, entry=entry, weights=WeightSchemes(plan["weights"], schemes, chosen),
            tokens=model.rules, generation=model.generation, tools=tool_versions(plan.format),
            also_for=job.also_for[job.plans.index(plan)] or None,
        )  # fmt: skip
        return open_bundle(writer.finish(manifest, note=finished.note(plan)), verify=False)


def _write_files(
    folder: Path, model: Model, store: WeightStore, plan: Plan, progress: Progress, layers: bool
) -> ModelEntry:
    """The model files of a bundle."""
    if model.vision is None:
        return write_model(folder, store, model.config, plan, model.info, progress, layers=layers)
    vision = model.vision
    entry, encoder, embedding = vision_formats.write_model(
        folder, store, model.config, vision.config, plan, model.info, progress
    )
    return replace(entry, vision=VisionEntry(encoder, embedding, vision.images, vision.tokens))


def _estimate(store: WeightStore) -> int:
    """Bytes that a bundle needs at the least: those of the compressed weights."""
    return sum(path.stat().st_size for path in store.folder.glob("*.safetensors"))
