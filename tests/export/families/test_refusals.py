"""No option is passed over in silence: one that a family does not know is named, whatever it is and says."""

import importlib
import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING

from satchel.export.families import standard
from satchel.export.families.options import HARMLESS
from satchel.export.families.registry import family_of
from satchel.export.rope import OPTIONAL, SCALINGS, partial_rope
from satchel.runtime.errors import CheckpointError


def published():
    path = Path(__file__).with_name("test_published.py")
    spec = importlib.util.spec_from_file_location("published", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: given for name, (given, _) in module.PUBLISHED.items()}


PUBLISHED = published()
KINDS = ("llama", "mixtral", "gemma3n_text", "deepseek_v3", "falcon", "gpt_oss", "phimoe", "qwen3_moe", "olmo",
         "cohere2", "nemotron", "granitemoe", "exaone4", "gpt_neox", "mpt")  # fmt: skip
OTHERS = sorted({key for kind in KINDS for key in CONFIG_MAPPING[kind]().to_dict()})
"""Options of other families in transformers: experts, norms, biases, ropes, windows, softcaps and so on."""
VALUES = st.one_of(
    st.integers(1, 9), st.floats(0.1, 9), st.just(True), st.just(0), st.text("abc", min_size=1, max_size=4),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.dictionaries(st.text("ab", min_size=1), st.integers(1, 3), min_size=1),
)  # fmt: skip
NAMES = st.sampled_from(OTHERS) | st.from_regex(r"[a-z][a-z_]{2,14}", fullmatch=True)


def known(name):
    """Keys that a family reads, or that have no effect; their values are for the tests of the family."""
    module = importlib.import_module(family_of(PUBLISHED[name]).configure.__module__)
    read = {key for attribute, keys in vars(module).items() if attribute.startswith("READ") for key in keys}
    return HARMLESS | read | ({"quantization_config", *standard.READ} if hasattr(module, "standard_config") else set())


@settings(max_examples=40, deadline=None)
@given(key=NAMES, value=VALUES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_an_option_that_a_family_does_not_know_is_named(name, key, value):
    if key in known(name):
        return
    changed = PUBLISHED[name] | {key: value}
    with pytest.raises(CheckpointError, match=key):
        family_of(changed).configure(changed)


NEEDED = {
    "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "factors": [1.0] * 8,
}  # fmt: skip
ROPE_KEYS = ("beta_fast", "mscale", "factor", "truncate", "attention_factor", "low_freq_factor", "short_factor",
             "long_mscale", "mrope_section", "alpha", "finetuned", "type2")  # fmt: skip


@given(
    kind=st.sampled_from(sorted(SCALINGS)),
    key=st.sampled_from(ROPE_KEYS) | st.from_regex(r"[a-z][a-z_]{2,14}", fullmatch=True),
    value=VALUES,
)
def test_a_key_of_the_rope_that_its_type_does_not_take_is_named(kind, key, value):
    keys, _ = SCALINGS[kind]
    taken = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *keys, *OPTIONAL.get(kind, ())}
    parameters = {"rope_type": kind, "rope_theta": 1e4} | {k: NEEDED[k] for k in keys}
    assert partial_rope(parameters, 16, 64).inv_freq
    if key not in taken:
        with pytest.raises(CheckpointError, match=key):
            partial_rope(parameters | {key: value}, 16, 64)


@given(st.text(min_size=1, max_size=12))
def test_a_type_of_rope_that_is_not_known_is_named_with_the_known_ones(kind):
    if kind not in SCALINGS:
        with pytest.raises(CheckpointError) as caught:
            partial_rope({"rope_type": kind, "rope_theta": 1e4}, 16, 64)
        assert caught.value.got == kind and all(k in caught.value.wanted for k in SCALINGS)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("kind", ["dynamic", "proportional", "mrope"])
def test_a_rope_that_a_family_cannot_have_is_named(name, kind):
    changed = PUBLISHED[name] | {"rope_scaling": {"rope_type": kind, "factor": 2.0}}
    with pytest.raises(CheckpointError, match=f"{kind}|rope_scaling"):
        family_of(changed).configure(changed)
