"""The shape of a model from its configuration alone is that of the whole checkpoint."""

from pathlib import Path

import huggingface_hub
import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from satchel.export.job import open_model
from satchel.export.shape import shape_of
from satchel.export.source import DEMO, DEMO_ID
from satchel.runtime.errors import CheckpointError
from tests.support.tiny_folder import tiny_folder
from tests.support.tiny_phi import phi_folder


@pytest.mark.parametrize("make", [tiny_folder, lambda p: tiny_folder(p, tied=False), phi_folder])
def test_configuration_alone_gives_the_shape_of_the_checkpoint(tmp_path, make):
    folder = make(tmp_path / "model")
    whole = open_model(folder, with_tokenizer=False).shape
    counted = sum(p.numel() for p in AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).parameters())
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    shape, described = shape_of(folder)
    assert shape == whole
    assert shape.parameters == counted
    assert described.source.name == "model"
    assert (described.tokenizer_bytes > 0) == (folder / "tokenizer.json").is_file()
    assert shape_of(folder / "config.json")[0] == shape_of(str(folder))[0] == shape


def test_a_gguf_file_and_the_demo():
    shape, described = shape_of(DEMO)
    assert (shape.parameters, shape.layers, shape.tied_embeddings) == (134_515_008, 30, True)
    assert described.source.model_id == DEMO_ID
    assert shape_of(described.source.path)[0] == shape


def test_of_a_hub_id_no_weights_are_fetched(tmp_path, monkeypatch):
    folder, asked = tiny_folder(tmp_path / "model"), {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda _, **o: asked.update(o) or str(folder))
    shape_of("owner/tiny-model")
    names = ["config.json", "tokenizer.json", "model.safetensors", "model.py", "pytorch_model.bin"]
    kept = huggingface_hub.utils.filter_repo_objects(names, allow_patterns=asked["allow_patterns"])
    assert list(kept) == names[:2]


def test_what_describes_no_model_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("[]")
    for model in (tmp_path / "notes.txt", tmp_path / "bad", tmp_path / "none" / "config.json", Path("nowhere")):
        with pytest.raises(CheckpointError):
            shape_of(model)
