"""Damaged and hostile checkpoints: a CheckpointError that says what, never another exception, never a wrong answer."""

import json
import pickle
import struct

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_checkpoints import save_gguf
from tiny_llama import tiny_llama

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.runtime.errors import CheckpointError

FAST = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
MODEL, CONFIG = tiny_llama(vocab=64, hidden=32, heads=2, kv_heads=1, intermediate=32, layers=1)


def load_all(path):
    """Opens, checks and reads everything."""
    _, tensors = load_family(open_checkpoint(path))
    return {name: tensors.read(name) for name in tensors.names()}


def refused_or_same(path, whole):
    """Damage is either refused, or is where it does not matter, or changes values (there is no checksum to tell)."""
    try:
        found = load_all(path)
    except CheckpointError:
        return
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in whole.items()}
    assert all(np.isfinite(v).all() for v in found.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("folder")
    MODEL.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return save_gguf(path, MODEL, CONFIG, Q.Q8_0, tokenizer=None)


@FAST
@given(where=st.floats(0, 1, exclude_max=True))
def test_truncated_safetensors(folder, tmp_path, where):
    data = (folder / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(data[: int(where * len(data))])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a whole"):
        load_all(tmp_path)


@FAST
@given(where=st.floats(0, 1, exclude_max=True))
def test_truncated_gguf(gguf_file, tmp_path, where):
    data = gguf_file.read_bytes()
    (tmp_path / "tiny.gguf").write_bytes(data[: int(where * len(data))])
    with pytest.raises(CheckpointError, match=r"tiny\.gguf (is not a whole|cannot be opened)"):
        load_all(tmp_path / "tiny.gguf")


@FAST
@given(at=st.integers(0, 1200), value=st.integers(0, 255))
def test_one_wrong_byte_in_a_safetensors_header(folder, tmp_path, at, value):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[at] = value
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(data)
    refused_or_same(tmp_path, load_all(folder))


@settings(FAST, max_examples=600)
@given(at=st.integers(0, 1500), value=st.integers(0, 255))
def test_one_wrong_byte_in_a_gguf_header(gguf_file, tmp_path, at, value):
    data = bytearray(gguf_file.read_bytes())
    data[at] = value
    (tmp_path / "tiny.gguf").write_bytes(data)
    refused_or_same(tmp_path / "tiny.gguf", load_all(gguf_file))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ROPE_KEYS = ("rope_type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor", "factors", "type")
ROPES = st.dictionaries(
    st.sampled_from(ROPE_KEYS), JSON | st.sampled_from(["default", "linear", "llama3", "gguf_factors", 2.0, 8.0])
)


@settings(FAST, max_examples=400)
@given(data=st.data())
def test_any_value_of_a_configuration(folder, tmp_path, data):
    config = json.loads((folder / "config.json").read_text())
    key = data.draw(st.sampled_from([*sorted(config), "rope_scaling", "rope_theta", "head_dim", "quantization_config"]))
    config[key] = data.draw(ROPES | JSON if key.startswith("rope") else JSON)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    refused_or_same(tmp_path, load_all(folder))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"model_type": "llama"}']
)
def test_damaged_config(folder, tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"config\.json|configuration"):
        load_all(tmp_path)


def safetensors_bytes(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        struct.pack("<Q", 2**63) + b"{}",
        safetensors_bytes(b"not json"),
        safetensors_bytes({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, b"\0" * 8),
        safetensors_bytes({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**60]}}, b"\0" * 8),
        safetensors_bytes({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, b"\0" * 8),
        safetensors_bytes(b'{"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}', b"\0" * 4),
    ],
)
def test_bad_safetensors_headers(folder, tmp_path, content):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_all(tmp_path)


def string(text):
    return struct.pack("<Q", len(text)) + text


def tensor(name, dimensions, kind=0, offset=0):
    return string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)


ARCHITECTURE = string(b"general.architecture") + struct.pack("<I", 8) + string(b"llama")
HEAD = b"GGUF" + struct.pack("<I", 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GGML" + b"\0" * 40, "magic"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648"),
        (HEAD + struct.pack("<QQ", 2**62, 0), "in the middle of its header"),
        (HEAD + struct.pack("<QQ", 0, 2**62), "in the middle of its header"),
        (HEAD + struct.pack("<QQQ", 0, 1, 2**63), "in the middle of its header"),
        (HEAD + struct.pack("<QQ", 0, 2) + 2 * ARCHITECTURE, "occurs twice"),
        (HEAD + struct.pack("<QQ", 0, 1) + string(b"\xff") + struct.pack("<IB", 0, 0), "utf-8"),
        (HEAD + struct.pack("<QQ", 0, 1) + string(b"a") + struct.pack("<IIQ", 9, 8, 2**62), "in the middle"),
        (HEAD + struct.pack("<QQ", 0, 1) + string(b"a") + struct.pack("<IIQ", 9, 4, 2**62), "in the middle"),
        (HEAD + struct.pack("<QQ", 0, 1) + string(b"a") + struct.pack("<IIQ", 9, 9, 1), "an array of type 9"),
        (HEAD + struct.pack("<QQ", 0, 1) + string(b"a") + struct.pack("<I", 99), "type 99"),
        (HEAD + struct.pack("<QQ", 1, 1) + ARCHITECTURE + tensor(b"a", [2**40, 2**40]), "ends at byte"),
        (HEAD + struct.pack("<QQ", 1, 1) + ARCHITECTURE + tensor(b"a", [32] * 5), "5 dimensions"),
        (HEAD + struct.pack("<QQ", 1, 1) + ARCHITECTURE + tensor(b"a", [1], kind=77), "unknown type 77"),
        (HEAD + struct.pack("<QQ", 1, 1) + ARCHITECTURE + tensor(b"a", [33], kind=8), "cannot be"),
        (HEAD + struct.pack("<QQ", 1, 1) + ARCHITECTURE + tensor(b"a", [0]), "cannot be"),
        (HEAD + struct.pack("<QQ", 1, 1) + ARCHITECTURE + tensor(b"a", [1], offset=2**63), "cannot be|ends at"),
        (HEAD + struct.pack("<QQ", 0, 0), "architecture"),
        (HEAD + struct.pack("<QQ", 0, 1) + ARCHITECTURE, "hidden_size|num_attention_heads|heads"),
    ],
)
def test_bad_gguf_headers(tmp_path, content, words):
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load_all(tmp_path / "bad.gguf")


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle ran')",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickles_are_not_opened(folder, tmp_path, name):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / name).write_bytes(pickle.dumps(Evil()))
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(CheckpointError, match=r"pickle.*save_pretrained"):
            load_all(path)


def test_nothing_to_read(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        open_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no safetensors"):
        open_checkpoint(tmp_path)
    (tmp_path / "a.gguf").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pass the file itself.*a\.gguf"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        open_checkpoint(tmp_path / "a.gguf")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="pass the folder"):
        open_checkpoint(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        open_checkpoint(tmp_path)


@pytest.fixture
def shards(tmp_path):
    MODEL.save_pretrained(tmp_path / "model", max_shard_size="10KB")
    return tmp_path / "model"


def edit_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "",
        "x.bin",
        ".hidden.safetensors",
        "a\\b.safetensors",
    ],
)
def test_an_index_that_points_elsewhere(shards, name):
    (shards.parent / "a.safetensors").write_bytes((shards / sorted(shards.glob("*.safetensors"))[0]).read_bytes())
    edit_index(shards, lambda names: names.update({"model.norm.weight": name}))
    with pytest.raises(CheckpointError, match="points out of the folder"):
        load_all(shards)


def test_shards_and_index_disagree(shards):
    load_all(shards)
    files = sorted(shards.glob("*.safetensors"))
    edit_index(shards, lambda names: names.pop("model.norm.weight"))
    with pytest.raises(CheckpointError, match=r"not in the index.*model\.norm\.weight"):
        load_all(shards)
    edit_index(shards, lambda names: names.update({"model.norm.weight": "model-00009-of-00009.safetensors"}))
    with pytest.raises(CheckpointError, match=r"shard is missing.*model-00009"):
        load_all(shards)
    edit_index(shards, lambda names: names.update({"model.norm.weight": files[-1].name, "more": files[0].name}))
    with pytest.raises(CheckpointError, match=r"not where the index says.*more"):
        load_all(shards)


def test_a_tensor_in_two_shards(shards):
    files = sorted(shards.glob("*.safetensors"))
    files[-1].write_bytes(files[0].read_bytes())
    with pytest.raises(CheckpointError, match="stored twice"):
        load_all(shards)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[", '{"weight_map": {}}'])
def test_damaged_index(shards, content):
    (shards / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        load_all(shards)
