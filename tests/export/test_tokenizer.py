"""Tokenizers out of folders and GGUF files."""

import json
import random

import pytest
from tiny_checkpoints import (
    CHAT_TEMPLATE,
    MERGES,
    VOCAB,
    byte_level,
    llama3,
    save_gguf,
    save_tokenizer,
    sentencepiece,
    tiny_tokenizer,
)
from tiny_llama import tiny_llama, weights_of
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from satchel.devices.plan import ModelShape
from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.export.source import resolve
from satchel.export.tokenizer import read_tokenizer, token_rules
from satchel.runtime.errors import TokenizerError, UsageError
from satchel.runtime.manifest import ModelInfo

HELLO = 262  # the id of "hello"
TEXTS = ["hello  12 worlds", "a  b\n\n c", "naïve 日本 🎉", "", "<|end|>", "x" * 300]


@pytest.fixture
def folder(tmp_path):
    model, _ = tiny_llama(vocab=VOCAB)
    model.config.bos_token_id, model.config.eos_token_id = 0, 0
    model.generation_config.bos_token_id, model.generation_config.eos_token_id = 0, 0
    model.save_pretrained(tmp_path)
    return tmp_path


def read(path):
    checkpoint = open_checkpoint(path)
    return read_tokenizer(checkpoint, load_family(checkpoint)[0])


def change_json(path, change):
    value = json.loads(path.read_text())
    value.update(change)
    path.write_text(json.dumps(value))


def test_folder(folder):
    save_tokenizer(folder)
    found, plain = read(folder), tiny_tokenizer()
    for text in TEXTS:
        assert found.encode(text) == plain.encode(text).ids
        assert found.decode(found.encode(text)) == text.replace("<|end|>", "")
    assert set(found.files()) == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert found.chat_template == CHAT_TEMPLATE
    # The end of a turn is known to the template alone.
    assert found.rules.stop_ids == (0, 2)
    assert (found.rules.bos_id, found.rules.prepend_bos, found.rules.vocab_size) == (0, False, VOCAB)
    assert read(folder).files() == found.files()


def test_transformers_reads_what_the_bundle_holds(folder, tmp_path):
    save_tokenizer(folder, add_bos_token=True)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    found = read(folder)
    for name, content in found.files().items():
        (bundle / name).write_bytes(content)
    theirs = AutoTokenizer.from_pretrained(bundle)
    messages = [{"role": "user", "content": "hello"}]
    assert [theirs(t).input_ids for t in TEXTS[:4]] == [found.encode(t) for t in TEXTS[:4]]
    assert theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == found.encode_chat(messages)


@pytest.mark.parametrize("said", [None, True, False])
@pytest.mark.parametrize("processed", [True, False])
def test_bos_is_added_by_rule_and_by_post_processor_alike(folder, said, processed):
    save_tokenizer(folder, **({} if said is None else {"add_bos_token": said}))
    if processed:
        tokenizer = tiny_tokenizer()
        tokenizer.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 0)])
        tokenizer.save(str(folder / "tokenizer.json"))
    found = read(folder)
    expected = processed if said is None else said
    assert found.rules.prepend_bos == expected
    assert found.encode("hello")[:1] == ([0] if expected else [HELLO])
    assert found.encode("<|bos|>hello")[:2] == [0, HELLO]  # never twice
    assert found.tokenizer.encode("hello").ids == found.encode("hello")
    assert json.loads(found.tokenizer_config)["add_bos_token"] == expected


def test_truncation_and_padding_are_left_out(folder):
    save_tokenizer(folder)
    change_json(
        folder / "tokenizer.json",
        {"truncation": {"max_length": 4, "direction": "Right", "strategy": "LongestFirst", "stride": 0}},
    )
    assert len(read(folder).encode("x" * 300)) == 300


@pytest.mark.parametrize("form", ["list", "file", "json file", "none"])
def test_forms_of_chat_templates(folder, form):
    templates = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": CHAT_TEMPLATE}]
    save_tokenizer(folder, chat_template=templates if form == "list" else None)
    if form == "file":
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    if form == "json file":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    found = read(folder)
    assert found.chat_template == (None if form == "none" else CHAT_TEMPLATE)
    assert found.rules.stop_ids == ((0,) if form == "none" else (0, 2))
    if form == "none":
        with pytest.raises(UsageError, match="no chat template"):
            found.encode_chat([{"role": "user", "content": "a"}])


def test_special_tokens_written_as_objects(folder):
    save_tokenizer(folder, bos_token={"content": "<|start|>", "lstrip": False}, eos_token={"content": "<|end|>"})
    found = read(folder)
    assert (found.rules.bos_id, found.rules.stop_ids) == (1, (0, 2))
    assert found.special_tokens["bos_token"] == "<|start|>"


def test_stop_ids_of_the_generation_config(folder):
    save_tokenizer(folder)
    change_json(folder / "generation_config.json", {"eos_token_id": [0, 7]})
    assert read(folder).rules.stop_ids == (0, 2, 7)


def test_slow_tokenizer_is_converted(folder):
    save_tokenizer(folder, tokenizer_class="GPT2Tokenizer")
    spec = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(spec["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in MERGES))
    found = read(folder)
    assert found.encode("hello world") == tiny_tokenizer().encode("hello world").ids


def test_gguf(tmp_path):
    model, config = tiny_llama(vocab=VOCAB)
    found = read(save_gguf(tmp_path / "tiny.gguf", model, config))
    plain = tiny_tokenizer()
    for text in TEXTS:
        assert found.encode(text) == plain.encode(text).ids, text
    assert found.chat_template == CHAT_TEMPLATE
    assert (found.rules.stop_ids, found.rules.prepend_bos, found.special_tokens["bos_token"]) == (
        (0, 2),
        False,
        "<|bos|>",
    )


def test_gguf_with_an_unknown_splitting(tmp_path, monkeypatch):
    model, config = tiny_llama(vocab=VOCAB)
    monkeypatch.setattr(
        "gguf.GGUFWriter.add_tokenizer_pre", lambda self, pre: self.add_string("tokenizer.ggml.pre", "odd")
    )
    with pytest.raises(TokenizerError, match=r"'odd'.*smollm.*--no-tokenizer"):
        read(save_gguf(tmp_path / "tiny.gguf", model, config))


def test_no_tokenizer(folder, tmp_path):
    model, config = tiny_llama(vocab=VOCAB)
    for path in (folder, save_gguf(tmp_path / "tiny.gguf", model, config, tokenizer=None)):
        with pytest.raises(TokenizerError, match=r"no tokenizer.*--no-tokenizer"):
            read(path)
    checkpoint = open_checkpoint(folder)
    rules = token_rules(checkpoint, load_family(checkpoint)[0])
    assert (rules.vocab_size, rules.bos_id, rules.prepend_bos, rules.stop_ids) == (VOCAB, 0, False, (0,))


def test_tokenizer_of_another_model(folder):
    save_tokenizer(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"extra {i}" for i in range(VOCAB)])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=f"does not fit.*'extra 55' is 320.*ids below {VOCAB}"):
        read(folder)


PANIC = (  # in tokenizers' Rust code
    b'{"model": {"type": "BPE", "vocab": {}, "merges": []},'
    b' "normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}}'
)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"model": {}}', b'{"model": {"type": "BPE"}}', PANIC]
)
def test_damaged_tokenizer(folder, content):
    save_tokenizer(folder)
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        read(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% if %}",
        "{{ raise_exception('never') }}",
        "{{ 'a' * 10**12 }}",
    ],
)
def test_hostile_chat_template(folder, template):
    save_tokenizer(folder, chat_template=template)
    with pytest.raises(TokenizerError, match="chat template"):
        read(folder)


def test_code_of_a_checkpoint_is_not_run(folder):
    save_tokenizer(folder, tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n")
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    with pytest.raises(TokenizerError, match="cannot be converted"):
        read(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("kind", [byte_level, llama3, sentencepiece], ids=lambda k: k.__name__)
def test_gguf_tokenizers_split_text_as_llama_cpp_does(tmp_path, kind):
    llama_cpp = pytest.importorskip("llama_cpp")
    model, config = tiny_llama(vocab=VOCAB)
    path = save_gguf(tmp_path / "tiny.gguf", model, config, tokenizer=kind)
    ours, theirs = read(path), llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)
    assert max(ours.tokenizer.get_vocab().values()) + 1 == len(open_checkpoint(path).metadata["tokenizer.ggml.tokens"])
    assert ours.rules.prepend_bos == (kind is not byte_level)
    assert ours.decode(ours.encode("hello world 12é")) == "hello world 12é"
    pieces = [
        "hello",
        " world",
        "  ",
        "1",
        "12",
        " 1",
        "é",
        "日",
        "\n",
        "h",
        "</s>",
        "<|end|>",
        "lo",
        "!!",
        "!",
        "1234",
    ]
    generator = random.Random(0)
    for _ in range(200):
        text = "".join(generator.choices(pieces, k=generator.randrange(1, 9)))
        assert ours.encode(text) == theirs.tokenize(text.encode(), add_bos=True, special=True), repr(text)


@pytest.mark.smollm2
def test_smollm2_splits_text_as_llama_cpp_does():
    """llama.cpp carries out tokenizer.ggml.pre by itself; transformers' conversion alone gets runs of spaces wrong."""
    llama_cpp = pytest.importorskip("llama_cpp")
    source = resolve("smollm2")
    theirs = llama_cpp.Llama(model_path=str(source.path), vocab_only=True, verbose=False)
    ours = read(source.path)
    assert json.loads(ours.tokenizer_config)["bos_token"] == "<|im_start|>"
    assert ours.rules.stop_ids == (2,)
    pieces = [
        "  12",
        "\n\n",
        "def f(x):",
        " naïve",
        "日本",
        " 🎉",
        "3.14",
        "   ",
        "don't",
        "\t",
        " 2026",
        "Über",
        "x  1",
    ]
    generator = random.Random(0)
    for _ in range(300):
        text = "".join(generator.choices(pieces, k=generator.randrange(1, 12)))
        assert ours.encode(text) == theirs.tokenize(text.encode(), add_bos=False, special=False), repr(text)


def test_onnxruntime_genai_splits_text_alike(folder, tmp_path):
    """It does not know Digits, and passes over it in silence: "  12" loses its run of spaces."""
    genai = pytest.importorskip("onnxruntime_genai")
    from satchel.devices.planner import make_plan
    from satchel.devices.profile import load_device
    from satchel.export.formats.onnx import write

    save_tokenizer(folder)
    found = read(folder)
    model, config = tiny_llama(vocab=VOCAB, layers=1)
    info = ModelInfo("tiny", "llama", "", "", "", "", 1)
    shape = ModelShape(1, 64, 4, 2, 16, 128, VOCAB, 1, 512, True)
    plan = make_plan(load_device("pixel-9"), shape, format="onnx", weights="int8", context=64)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    write(bundle, weights_of(model, config, "int8"), config, plan, info)
    for name, content in found.files("onnx").items():
        (bundle / name).write_bytes(content)
    theirs = genai.Tokenizer(genai.Model(str(bundle)))
    texts = [*TEXTS[:3], "  12", "x   3.14  \n\n 5", "½  ٣   Ⅷ", "don't  1", " 2026"]
    assert [theirs.encode(t).tolist() for t in texts] == [found.encode(t) for t in texts]
    respelled = Tokenizer.from_str(found.files("onnx")["tokenizer.json"].decode())
    assert [respelled.encode(t, add_special_tokens=False).ids for t in texts] == [found.encode(t) for t in texts]
    messages = [{"role": "user", "content": "hello"}]
    rendered = theirs.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
    assert theirs.encode(rendered).tolist() == found.encode_chat(messages)


def test_executorchs_runner_splits_text_alike(folder, tmp_path):
    native = pytest.importorskip("pytorch_tokenizers.pytorch_tokenizers_cpp")
    save_tokenizer(folder)
    found = read(folder)
    (tmp_path / "bundle.json").write_bytes(found.files("executorch")["tokenizer.json"])
    theirs = native.HFTokenizer()
    theirs.load(str(tmp_path / "bundle.json"))
    texts = [*TEXTS[:3], "  12", "x   3.14  \n\n 5", "½  ٣   Ⅷ", "don't  1", " 2026"]
    assert [list(theirs.encode(t, 0, 0)) for t in texts] == [found.encode(t) for t in texts]


def test_templates_that_tell_the_time(folder):
    save_tokenizer(folder, chat_template=CHAT_TEMPLATE + "{{ date_string }}")
    found = read(folder)
    messages = [{"role": "user", "content": "a"}]
    assert found.decode(found.encode_chat(messages)).endswith("1 Jan 2026")
    assert not found.tells_the_time
    save_tokenizer(folder, chat_template=CHAT_TEMPLATE + "{{ strftime_now('%d') }}")
    assert read(folder).tells_the_time


def test_files_are_compact(folder):
    save_tokenizer(folder)
    found = read(folder)
    assert len(found.tokenizer_json) < (folder / "tokenizer.json").stat().st_size
    assert Tokenizer.from_str(found.tokenizer_json.decode()).get_vocab() == tiny_tokenizer().get_vocab()
