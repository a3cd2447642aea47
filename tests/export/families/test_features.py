"""What families say of themselves is what their cases hold: every option on and off, in every op set."""

import importlib.util
import json
import re
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import pytest
import transformers
from family_runner import configuration
from packaging.version import Version
from typer.testing import CliRunner

from satchel.cli import app, models
from satchel.export.families.catalogue import HELD_AGAINST, entries
from satchel.export.families.features import features
from satchel.export.families.registry import FAMILIES, MULTIMODAL, family_of


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
    assert read == {family.name for family in EVERY.values() if family.gguf or family.gguf_as}


def test_versions_that_the_families_were_held_against_are_not_newer_than_what_is_installed():
    for package, version in HELD_AGAINST.items():
        assert Version(metadata.version(package)) >= Version(version), package


def test_the_page_of_the_families_is_what_the_command_prints():
    page = (Path(__file__).parents[3] / "docs" / "families.md").read_text("utf-8")
    assert page == models.page(entries()), "satchel models --markdown > docs/families.md"


def listed(*arguments, code=0):
    done = CliRunner().invoke(app, ["models", *arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_the_command_lists_and_finds_families():
    found = json.loads(listed("--json").stdout)
    assert {kind for entry in found for kind in entry["model_types"]} == {*FAMILIES, *MULTIMODAL}
    for name in ("phi", "phi2", "microsoft/phi-2", "Phi-2"):
        entry = json.loads(listed(name, "--json").stdout)
        assert (entry["name"], "microsoft/phi-2" in entry["models"]) == ("phi", True)
    assert "block-sparse attention" in listed("Phi-3-small-8k-instruct").stdout
    assert all(name in listed().stdout for name in EVERY)
    error = json.loads(listed("mamba", "--json", code=2).stdout)
    assert (error["error"], error["got"]) == ("UsageError", "mamba")


def test_the_worked_example_is_the_family_that_is_there():
    """CONTRIBUTING.md shows a family's file and its cases whole; they are run as any other's."""
    root = Path(__file__).parents[3]
    text = (root / "CONTRIBUTING.md").read_text("utf-8")
    shown = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    files = ["export/families/starcoder2.py", "tests/export/families/test_starcoder2.py"]
    assert shown == [(root / file).read_text("utf-8") for file in files]
    assert all(f"`{file}`" in text for file in files)
    assert '    "starcoder2": STARCODER2,\n' in (root / "export/families/registry.py").read_text("utf-8")
