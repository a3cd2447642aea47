"""Ops of two programs are paired although one has other names and further ops; layers are told apart."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satchel.runtime.coreml.alignment import MOST_CELLS, align
from satchel.runtime.mil.graph import Graph, Node
from satchel.runtime.mil.layers import find_layers

LAYER = (("abs", 8), ("reduce_max", 1), ("real_div", 8), ("linear", 32), ("tanh", 32), ("linear", 8), ("add", 8))


def chain(ops: Sequence[tuple[str, int]], names: Sequence[str] | None = None, weights: bool = False) -> Graph:
    """A program in which each op reads the one before."""
    nodes: list[Node] = []
    for i, (op, size) in enumerate(ops):
        name = names[i] if names else f"{op}_{i}"
        before = (nodes[-1].output,) if nodes else ("x",)
        used = (f"w{i}_to_fp16",) if weights and op == "linear" else ()
        nodes.append(Node(i, op, name, (name,), "float16", (1, size), before, used, {}, i + 1))
    return Graph(tuple(nodes))


def indices(a: Graph, b: Graph) -> list[tuple[int, int]]:
    return [(x.index, y.index) for x, y in align(a, b)]


@given(st.integers(1, 6), st.sets(st.integers(0, 41), max_size=8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_ops_put_in_shift_nothing(layers: int, places: set[int], renamed: bool) -> None:
    """One program has further ops anywhere, so that all names that are numbers are shifted."""
    ops = LAYER * layers
    wanted, longer = [], []
    for i, op in enumerate(ops):
        if i in places:
            longer.append(("cast", op[1]))
        wanted.append((i, len(longer)))
        longer.append(op)
    names = [f"op_{i}" for i in range(len(longer))] if renamed else None
    assert indices(chain(ops), chain(longer, names)) == wanted
    assert indices(chain(longer, names), chain(ops)) == [(j, i) for i, j in wanted]


def test_a_first_layer_unlike_the_others_does_not_shift_them() -> None:
    other = (*LAYER[:3], ("conv", 32), ("erf", 32), ("conv", 8), ("add", 8))
    a, b = chain(LAYER * 6), chain((*other, *LAYER * 5))
    pairs = indices(a, b)
    assert all(i == j for i, j in pairs)
    assert set(range(7, 42)) <= {i for i, _ in pairs}


def test_ops_that_were_moved_or_replaced_are_found_by_name() -> None:
    a = chain([("linear", 4), ("mul", 4), ("relu", 4), ("exp", 4)], ["one", "two", "three", "four"])
    moved = chain([("mul", 4), ("linear", 4), ("relu", 4), ("gelu", 4)], ["two", "one", "three", "four"])
    assert sorted(indices(a, moved)) == [(0, 1), (1, 0), (2, 2), (3, 3)]
    assert indices(chain([("linear", 4)]), chain([("linear", 5)])) == []


def test_casts_of_other_values_are_no_pair() -> None:
    def program(casts: Sequence[str]) -> Graph:
        ops = [
            ("read_state", "old", "s"),
            *(("cast", f"cast_{i}", c) for i, c in enumerate(casts)),
            ("exp", "e", "old"),
        ]
        nodes = [Node(i, op, name, (name,), "", (4,), (source,), (), {}, 1) for i, (op, name, source) in enumerate(ops)]
        return Graph(tuple(nodes))

    assert indices(program(["old"]), program(["old"])) == [(0, 0), (1, 1), (2, 2)]
    assert indices(program(["x"]), program(["x"])) == [(0, 0), (1, 1), (2, 2)]
    for one, other in (("old", "x"), ("x", "old"), ("x", "y")):
        assert indices(program([one]), program([other])) == [(0, 0), (2, 2)]
    assert indices(program(["old", "cast_0"]), program(["old"])) in ([(0, 0), (1, 1), (3, 2)], [(0, 0), (2, 1), (3, 2)])


def test_very_long_programs_are_aligned_by_type(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_CELLS > 7000**2
    monkeypatch.setattr("satchel.runtime.coreml.alignment.MOST_CELLS", 10)
    longer = (*LAYER, ("cast", 8), *LAYER)
    assert indices(chain(LAYER * 2), chain(longer)) == [(i, i + (i > 6)) for i in range(14)]


# --- layers ---


def numbers(found: Graph) -> list[int | None]:
    layers = find_layers(found)
    return [layers[n.output].number if n.output in layers else None for n in found.nodes]


@pytest.mark.parametrize(
    "name",
    ["layers_{}_mlp_weight", "model.layers.{}.mlp", "layers__{}__mlp", "encoder_layer_{}_ln", "blocks.{}.fc1",
     "h_{}_attn_c_proj", "layer{}_0_conv1_weight", "features_{}_0_weight_to_fp16"],
)  # fmt: skip
def test_numbers_in_names(name: str) -> None:
    ops = (("gather", 8), *LAYER * 3, ("linear", 99))
    nodes = []
    for node in chain(ops).nodes:
        layer = (node.index - 1) // len(LAYER)
        used: tuple[str, ...] = ()
        if node.op == "linear":
            used = (name.format(layer),) if node.index < 22 else ("lm_head",)
        if node.op == "gather":
            used = ("embed",)
        nodes.append(Node(node.index, node.op, node.name, node.outputs, "", node.shape, node.sources, used, {}, 1))
    found = Graph(tuple(nodes))
    assert numbers(found) == [None, *(k for k in range(3) for _ in LAYER), None]
    assert str(find_layers(found)["add_21"]) == "layer 2 of 3 (counted from 0)"


def test_names_that_only_look_like_layers() -> None:
    for name in ("layer_norm_3", "block3x3_w", "conv_3", "sublayers", "stage", "bh_3"):
        ops = (("linear", 4), ("linear", 5))
        nodes = [
            Node(n.index, n.op, name.replace("3", str(n.index)), (n.output,), "", n.shape, (), (), {}, 1)
            for n in chain(ops).nodes
        ]
        assert numbers(Graph(tuple(nodes))) == [None, None], name


@given(st.integers(2, 12), st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_repeating_structure(layers: int, before: int, after: int) -> None:
    ops = (*[("cos", i + 100) for i in range(before)], *LAYER * layers, *[("sin", i + 200) for i in range(after)])
    wanted = [None] * before + [k for k in range(layers) for _ in LAYER] + [None] * after
    assert numbers(chain(ops)) == wanted


def test_no_structure_no_layers() -> None:
    assert numbers(chain([("conv", i) for i in range(1, 30)])) == [None] * 29
    assert numbers(chain([("add", 3)] * 30)) == [None] * 30  # a run of sums is no network of layers
    assert numbers(chain([])) == []
