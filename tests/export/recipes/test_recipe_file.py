"""Recipe files: what is written is read back, nothing else gets through, and what ships makes sense."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_llama import tiny_llama

from satchel.devices.plan import ModelShape
from satchel.devices.planner import make_plan
from satchel.devices.profile import load_device
from satchel.export.palettize.spec import PALETTE_WIDTHS, Budget
from satchel.export.recipe import Wishes, make_wishes, recipe_for
from satchel.export.recipes.recipe_file import (
    FOLDER,
    KEYS,
    LINEAR_KEYS,
    check_patterns,
    load_recipe,
    parse_recipe,
    recipe_names,
    recipe_text,
)
from satchel.runtime.errors import SatchelError, UsageError

SMALL = ModelShape(2, 64, 4, 2, 16, 128, 320, 100_000, 512, True)
WIDTHS = st.sampled_from(PALETTE_WIDTHS)
BUDGETS = st.one_of(
    st.builds(Budget, average_bits=st.floats(0.5, 16)),
    st.builds(Budget, max_bytes=st.integers(1, 10**15)),
    st.builds(Budget, max_kl=st.floats(1e-6, 100)),
)
"""Any that a file can say."""


@st.composite
def wishes(draw):
    budget = draw(st.none() | BUDGETS)
    several = st.lists(WIDTHS, min_size=2, max_size=4, unique=True).map(lambda w: tuple(sorted(w)))
    widths = draw(st.none() | (several if budget else WIDTHS.map(lambda b: (b,))))
    linears = draw(st.dictionaries(st.text(min_size=1), WIDTHS, max_size=4))
    bare = tuple(match for match, bits in linears.items() if bits == 4 and draw(st.booleans()))
    return Wishes(
        draw(st.sampled_from((None, "low", "normal", "high"))), widths, budget, tuple(linears.items()),
        draw(st.sampled_from((None, "int8", "fp16"))), draw(st.sampled_from((None, "palette", "int4"))), bare,
    )  # fmt: skip


@given(wishes())
def test_what_is_written_is_read_back(asked):
    assert parse_recipe(recipe_text(asked, ["two", "lines"]), "x.toml") == asked


SCALARS = st.one_of(
    st.sampled_from(["4", "[4, 6]", "0.1", "-1", "nan", "inf", "true", '"palette"', '"int4"', '"80MB"', '"low"', "1"]),
    st.integers().map(str),
    st.just("0x" + "f" * 5000),
    st.just("[" * 3000),
    st.just("1979-05-27"),
    st.text(max_size=8).map(repr),
)
LINES = st.tuples(st.sampled_from([*KEYS, *LINEAR_KEYS, "Schema", "a.b"]), SCALARS).map(" = ".join)
WHOLE = st.sampled_from(["[[linear]]", "[linear]", "schema = 1", 'match = "*"', "bits = 4"])
FILES = st.lists(LINES | WHOLE).map("\n".join)


@given(FILES | st.text() | FILES.map(lambda text: f"schema = 1\n{text}"))
def test_any_text_is_a_recipe_or_a_usage_error(text):
    try:
        asked = parse_recipe(text, "x.toml")
    except UsageError:
        return
    for device in ("iphone-15-pro", "pixel-9", "raspberry-pi-5"):
        with suppress(SatchelError):
            recipe_for(make_plan(load_device(device), SMALL, weights=asked.weights), asked)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bits = 4", "does not say its schema"),
        ("schema = 2", "schema is not what it should be.*2.*1"),
        ("schema = true", "schema is not what it should be"),
        ("schema = 1\nmax_sise = '1MB'", "unknown key.*max_sise.*did you mean max_size"),
        ("schema = 1\nbits = 5", r"bits is not what it should be.*5.*\(1, 2, 3, 4, 6, 8\)"),
        ("schema = 1\nbits = true", "bits is not"),
        ("schema = 1\nbits = []", "bits is not"),
        ("schema = 1\nbits = [4, 4]\nmax_kl = 1", "bits is not"),
        ("schema = 1\nbits = [4, 6]", "nothing to choose by"),
        ("schema = 1\nbits = 4\nmax_kl = 0.1", "nothing to choose"),
        ("schema = 1\nmax_size = '1MB'\nmax_kl = 0.1", "several budgets.*max_size and max_kl"),
        ("schema = 1\nmax_kl = nan", "max_kl is not"),
        ("schema = 1\nmax_size = 0", "max_size is not"),
        ("schema = 1\nmax_size = 'big'", "max_size.*big.*2GB"),
        ("schema = 1\n[[linear]]\nmatch = 'x'", "linear 1 is not.*the key bits too"),
        ("schema = 1\n[[linear]]\nmatch = 'x'\nbits = 4\nzero_point = false", "linear 1 has.*did you mean zero_points"),
        ("schema = 1\n[[linear]]\nmatch = 'x'\nbits = 8\nzero_points = false", "4 bits where zero_points"),
        ("schema = 1\n[linear]\nmatch = 'x'\nbits = 8", "linear is not.*tables"),
        ("schema = 1\nschema = 1", "no valid TOML"),
    ],
)
def test_what_is_refused_is_named(text, says):
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, "x.toml")
    assert re.search(says, str(caught.value).replace("\n", " ")) and "x.toml" in str(caught.value)


def test_patterns_name_linears():
    _, config = tiny_llama()
    linears = [name for name in config.matrix_shapes() if name.startswith("layers.")]
    check_patterns(Wishes(overrides=(("layers.?.mlp.*", 4), ("layers.1.self_attn.v_proj", 8))), linears)
    for pattern in ("layers.2.mlp.up_proj", "embed_tokens", "v_proj"):
        with pytest.raises(UsageError, match=f"matches no linear.*{pattern}"):
            check_patterns(Wishes(overrides=(("layers.*", 4), (pattern, 8))), linears)


def test_what_ships_is_good_and_in_the_readme(tmp_path):
    readme = (FOLDER / "README.md").read_text()
    for name in recipe_names():
        asked = load_recipe(name)
        assert f"| `{name}` |" in readme
        recipe = recipe_for(make_plan(load_device("iphone-15-pro"), SMALL, weights=asked.weights), asked)
        assert recipe.effort == "normal"
    assert all(f"| `{key}` |" in readme for key in (*KEYS, *LINEAR_KEYS) if key != "linear")
    example = re.search(r"```toml\n(.*?)```", readme, re.S)[1]
    (tmp_path / "mine.toml").write_text(example)
    assert load_recipe(tmp_path / "mine.toml").overrides == (("layers.*.self_attn.v_proj", 6),)
    with pytest.raises(UsageError, match=f"unknown recipe.*{recipe_names()[0]}"):
        load_recipe("mine")
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")


def test_arguments_add_only_what_a_recipe_leaves_open():
    open_ = parse_recipe("schema = 1\nembedding = 'fp16'", "x.toml")
    joined = make_wishes("high", max_size="1GB", weights="int4", recipe=open_)
    assert joined == Wishes("high", None, Budget(max_bytes=10**9), embedding="fp16", weights="int4")
    settled = parse_recipe("schema = 1\neffort = 'low'\nbits = 4\nweights = 'int4'", "x.toml")
    for also in ({"effort": "high"}, {"bits": 8}, {"max_kl": 0.1}, {"weights": "palette"}):
        with pytest.raises(UsageError, match="settles that already"):
            make_wishes(recipe=settled, **also)
