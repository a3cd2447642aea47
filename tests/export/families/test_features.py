"""What families say of themselves is what their cases hold: every option on and off, in every op set."""

import importlib.util
from functools import lru_cache
from pathlib import Path

import pytest
import transformers
from family_runner import configuration

from satchel.export.families.features import features
from satchel.export.families.registry import FAMILIES, family_of


def beside(stem):
    """A test module of this folder."""
    path = Path(__file__).with_name(f"{stem}.py")
    spec = importlib.util.spec_from_file_location(stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PUBLISHED = beside("test_published").PUBLISHED
EVERY = {family.name: family for family in FAMILIES.values()}


@lru_cache
def cases():
    """Family -> the features of each of its cases, found in the case files beside this one."""
    found = {name: [] for name in EVERY}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path != Path(__file__) and "@in_every_op_set(CASES)" in path.read_text():
            for case in beside(path.stem).CASES.values():
                family = family_of(configuration(case))
                found[family.name].append(features(family.configure(configuration(case))))
    return found


@pytest.mark.parametrize("name", EVERY)
def test_options_are_on_and_off_among_the_cases(name):
    family, found = EVERY[name], cases()[name]
    assert len(set(family.options)) == len(family.options)
    assert set(family.options) | set(family.always) == set().union(*found)
    assert set(family.always) == set.intersection(*found)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_no_other_options(name):
    given, _ = PUBLISHED[name]
    family = family_of(given)
    found = features(family.configure(given))
    assert found <= set(family.options) | set(family.always)
    assert found >= set(family.always)
    assert any(name.lower() in model.lower() for model in family.published), "its id is listed"


def test_every_family_is_known_by_what_it_lists():
    for kind, family in FAMILIES.items():
        assert kind in family.model_types and family.published
        assert bool(family.stand) != any(k in transformers.models.auto.CONFIG_MAPPING for k in family.model_types)
        assert bool(family.stand) <= bool(family.checked)
    gguf = beside("test_gguf")
    read = {gguf.tiny_family(name).name for name in gguf.FAMILIES}
    assert read == {family.name for family in EVERY.values() if family.gguf} | {"mistral"}  # whose files say llama
