"""What an export is to do, known and checked before any weight is read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from satchel.devices.groups import expand
from satchel.devices.plan import ModelShape, Plan, alike
from satchel.devices.planner import make_plan
from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.base import DecoderConfig
from satchel.export.families.registry import load_family, multimodal_family
from satchel.export.families.tensors import CanonicalTensors
from satchel.export.formats.vision import check_format
from satchel.export.generation import generation_defaults
from satchel.export.memory import MemoryPlan, plan_memory
from satchel.export.palettize.source_codes import check_source
from satchel.export.palettize.spec import Recipe
from satchel.export.recipe import Wishes, recipe_for
from satchel.export.recipes.recipe_file import check_patterns
from satchel.export.shape import shape_of_decoder, shape_of_tower
from satchel.export.source import Source, model_info, resolve
from satchel.export.tokenizer import BundleTokenizer, read_tokenizer, token_rules
from satchel.export.vision.checkpoint import open_parts
from satchel.export.vision.model import Vision, read_vision
from satchel.export.vision.prompts import taught
from satchel.runtime.bundle import SUFFIX
from satchel.runtime.errors import UsageError
from satchel.runtime.manifest import GenerationDefaults, ModelInfo, TokenRules
from satchel.runtime.sizes import parse_size


@dataclass(frozen=True)
class Model:
    """A checkpoint that was opened: all but its weights' values.

    Attributes:
        source: where it lies.
        config: its shape, with the tokenizer's ids.
        tensors: its weights, read when they are asked for.
        info: where it comes from.
        tokenizer: None for one without.
        rules: of its token ids.
        generation: its defaults.
        vision: the part that sees, of a model that has one; all else is then of its text model.
    """

    source: Source
    config: DecoderConfig
    tensors: CanonicalTensors
    info: ModelInfo
    tokenizer: BundleTokenizer | None
    rules: TokenRules
    generation: GenerationDefaults
    vision: Vision | None = None

    @property
    def shape(self) -> ModelShape:
        """What a plan needs to know."""
        shape = shape_of_decoder(self.config)
        if self.vision is None:
            return shape
        return dataclasses.replace(shape, tower=shape_of_tower(self.vision.config, self.vision.images))


@dataclass(frozen=True)
class Job:
    """Bundles to write: what can be wrong with a request has been found by now.

    Attributes:
        model: to export.
        plans: for each bundle, what its devices get.
        also_for: for each plan, further devices that get the same; the plan names the first.
        recipes: for each plan, what becomes of the weights.
        output: folder of the bundles.
        overwrite: whether bundles that exist are replaced.
        memory: how the export keeps within its memory.
    """

    model: Model
    plans: tuple[Plan, ...]
    also_for: tuple[tuple[str, ...], ...]
    recipes: tuple[Recipe, ...]
    output: Path
    overwrite: bool
    memory: MemoryPlan

    def target(self, plan: Plan) -> Path:
        """Where the bundle of a plan goes."""
        return self.output / f"{self.model.source.name}-{plan.device}{SUFFIX}"


def open_model(model: str | Path, *, with_tokenizer: bool = True) -> Model:
    """Reads configuration, names and tokenizer.

    Args:
        model: as source.resolve takes it.
        with_tokenizer: False for a model that has none.

    Raises:
        CheckpointError, TokenizerError, MissingPackageError: it cannot be read.
    """
    source = resolve(model)
    whole = open_checkpoint(source.path)
    seeing = multimodal_family(whole.config)
    parts = open_parts(whole, seeing) if seeing else None
    checkpoint = parts.text if parts else whole
    config, tensors = (parts.config, parts.tensors) if parts else load_family(checkpoint)
    tokenizer = read_tokenizer(checkpoint, config) if with_tokenizer else None
    if parts and tokenizer:
        tokenizer = taught(parts, tokenizer)
    rules = tokenizer.rules if tokenizer else token_rules(checkpoint, config)
    config = dataclasses.replace(config, bos_token_id=rules.bos_id, eos_token_ids=rules.stop_ids)
    info, defaults = model_info(source, checkpoint, config), generation_defaults(checkpoint.generation_config)
    vision = read_vision(whole, parts, tokenizer) if parts else None
    if vision is not None:
        sizes = [*vision.config.matrix_shapes().values(), *vision.config.vector_shapes().values()]
        parameters = info.parameters + sum(map(math.prod, sizes))
        info = dataclasses.replace(info, family=vision.config.family, parameters=parameters)
    return Model(source, config, tensors, info, tokenizer, rules, defaults, vision)


def make_job(
    model: str | Path, devices: Sequence[str], wishes: Wishes, *, format: str | None, context: int | None,
    output: Path, tokenizer: bool, overwrite: bool, max_memory: int | str | None,
    overrides: Mapping[str, str] | None = None,
) -> Job:  # fmt: skip
    """Opens the model, and plans for each device. Arguments and errors as pipeline.export has them."""
    profiles = expand(devices)
    if not profiles:
        raise UsageError("no device is named", got=devices, wanted="one or more", hint="see `satchel devices`")
    opened = open_model(model, with_tokenizer=tokenizer)
    check_patterns(wishes, list(opened.config.linear_shapes()))
    by_loss = wishes.effort != "low"
    groups = alike(
        make_plan(
            profile, opened.shape, format=format, weights=wishes.weights, context=context, by_loss=by_loss,
            overrides=overrides or {},
        )
        for profile in profiles
    )  # fmt: skip
    plans = [group[0] for group in groups]
    also_for = tuple(tuple(plan.device for plan in group[1:]) for group in groups)
    if opened.vision:
        for plan in plans:
            check_format(plan.format, opened.vision.config.family)
    opened = dataclasses.replace(opened, config=_settled(opened.config, plans))
    check_source(opened.tensors, opened.config, plans)
    recipes = tuple(recipe_for(plan, wishes) for plan in plans)
    limit = None if max_memory is None else parse_size(max_memory, "--max-memory")
    curved, tunable = any(recipe.curved for recipe in recipes), any(recipe.tunable for recipe in recipes)
    tower, shown = (opened.vision.config, opened.vision.shown) if opened.vision else (None, 0)
    memory = plan_memory(opened.config, limit, curved=curved, tunable=tunable, tower=tower, shown=shown)
    return Job(opened, tuple(plans), also_for, recipes, output, overwrite, memory)


def _settled(config: DecoderConfig, plans: Sequence[Plan]) -> DecoderConfig:
    """The model at the plans' contexts: LongRoPE has other frequencies beyond its original context.

    Raises UsageError where the plans lie on both sides of it, since they would not be the same model.
    """
    found = {config.at_context(plan.context_length): plan.context_length for plan in plans}
    if len(found) > 1:
        raise UsageError(
            "the devices' contexts lie on both sides of this model's change of its rotary frequencies",
            got=sorted(found.values()),
            wanted=f"all up to {config.rope.switch} tokens, or all beyond",
            hint="give one --context for all, or export them one by one",
        )
    return next(iter(found))
