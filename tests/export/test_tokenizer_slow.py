"""Tokenizers that are stored in other forms than tokenizer.json, against the libraries that they were made for."""

import base64
import json
import random

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tiny_checkpoints import CHAT_TEMPLATE, MERGES, VOCAB
from tiny_llama import tiny_llama
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.export.tokenizer import read_tokenizer
from satchel.export.tokenizer_slow import PHI3_SMALL, from_sentencepiece, from_tiktoken
from satchel.runtime.errors import TokenizerError

TEXT = (
    "The quick brown fox jumps over the lazy dog. def f(x):\n    return x + 12345\nnaïve café — déjà vu\n"
    "吾輩は猫である。名前はまだ無い。 emoji 🎉👩‍👩‍👧 Straße ÅÄÖ\n"
)
TEXTS = [
    "hello world", " hello", "  two  spaces ", "日本語 🎉👩‍👩‍👧 naïve", "def f(x):\n    return x\n\n", "12 345",
    "\t tab", "𝔘ñ", "café", "é", "don't 3.14", "a\u00a0b", "x" * 50,
]  # fmt: skip
PIECES = [" ", "  ", "\n", "the", "The", "1", "234", "é", "日", "🎉", "def ", "'s", "!", "_", "\t", "ß"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """SentencePiece models, with and without its usual normalization; with runs of spaces as symbols, as Gemma's."""
    folder = tmp_path_factory.mktemp("spm")
    (folder / "text.txt").write_text(TEXT * 20)
    found = {}
    for kind in ("bpe", "unigram"):
        for name, options in {
            "plain": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
            "no prefix": {
                "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "add_dummy_prefix": False,
                "user_defined_symbols": ["<user>", *(["▁▁"] if kind == "bpe" else [])],
            },
            "nmt_nfkc": {},
        }.items():  # fmt: skip
            prefix = folder / f"{kind}-{name.replace(' ', '-')}"
            SentencePieceTrainer.train(
                input=str(folder / "text.txt"), model_prefix=str(prefix), model_type=kind, vocab_size=420,
                byte_fallback=True, hard_vocab_limit=False, minloglevel=2, **options,
            )  # fmt: skip
            found[f"{kind} {name}"] = prefix.with_suffix(".model")
    return found


@pytest.mark.parametrize("name", [f"{k} {n}" for k in ("bpe", "unigram") for n in ("plain", "no prefix", "nmt_nfkc")])
def test_sentencepiece_models_split_text_as_sentencepiece_does(trained, name):
    ours = Tokenizer.from_str(json.dumps(from_sentencepiece(trained[name], {})))
    theirs = SentencePieceProcessor(model_file=str(trained[name]))
    draw = random.Random(0)
    drawn = ["".join(draw.choices(PIECES, k=draw.randrange(1, 12))) for _ in range(300)]
    for text in [*TEXTS, *drawn]:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text), repr(text)
        assert ours.decode(ids) == theirs.decode(ids), repr(text)


def ranks(folder):
    """A small file in tiktoken's form."""
    tokens = [bytes([i]) for i in range(256)]
    tokens += [
        a + b for a, b in ((b"t", b"h"), (b"th", b"e"), (b" ", b"the"), (b"3", b"4"), (b"2", b"34"), (b" ", b" "))
    ]
    tokens += ["é".encode(), " 日本".encode()]
    lines = [base64.b64encode(t) + b" " + str(i).encode() for i, t in enumerate(tokens)]
    path = folder / "cl100k_base.tiktoken"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path, {t: i for i, t in enumerate(tokens)}


def cl100k():
    """How cl100k_base splits text, as tiktoken has it; its ranks would have to be fetched."""
    from tiktoken_ext import openai_public

    load, openai_public.load_tiktoken_bpe = openai_public.load_tiktoken_bpe, lambda *a, **k: {}
    try:
        return openai_public.cl100k_base()["pat_str"]
    finally:
        openai_public.load_tiktoken_bpe = load


@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=20), st.lists(st.sampled_from([*PIECES, "\r\n", " 日本"]), max_size=12).map("".join)
    )
)
def test_tiktokens_ranks_split_text_as_tiktoken_does(tmp_path_factory, text):
    if not hasattr(cl100k, "made"):
        path, table = ranks(tmp_path_factory.mktemp("ranks"))
        special = {"<|end|>": 300}
        cl100k.made = (
            Tokenizer.from_str(json.dumps(from_tiktoken(path, special))),
            tiktoken.Encoding("tiny", pat_str=cl100k(), mergeable_ranks=table, special_tokens=special),
        )
    ours, theirs = cl100k.made
    for given_text in (text, text + "<|end|>" + text):
        ids = ours.encode(given_text, add_special_tokens=False).ids
        assert ids == theirs.encode(given_text, allowed_special="all", disallowed_special=()), repr(given_text)
        assert ours.decode(ids, skip_special_tokens=False) == given_text


def test_control_tokens_of_phi_3_small():
    """As its published tokenizer numbers them; all that are never given to text are dummies of its configuration."""
    assert sorted(PHI3_SMALL.values()) == list(range(100256, 100352))
    assert [PHI3_SMALL[t] for t in ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")] == [
        100257, 100261, 100262, 100263, 100266,
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    model, _ = tiny_llama(vocab=VOCAB + 300)
    model.config.bos_token_id, model.config.eos_token_id = 1, 2
    model.generation_config.eos_token_id = [2]
    model.save_pretrained(tmp_path)
    return tmp_path


def read(path):
    checkpoint = open_checkpoint(path)
    return read_tokenizer(checkpoint, load_family(checkpoint)[0])


def test_a_llama_with_tokenizer_model_alone(folder, trained):
    (folder / "tokenizer.model").write_bytes(trained["bpe plain"].read_bytes())
    config = {"tokenizer_class": "LlamaTokenizer", "chat_template": CHAT_TEMPLATE.replace("<|end|>", "</s>"),
              "added_tokens_decoder": {"600": {"content": "<|tool|>", "special": True}}}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    found, theirs = read(folder), SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in TEXTS:
        assert found.encode(text) == [1, *theirs.encode(text)]
        assert found.decode(found.encode(text)) == text
    assert (found.rules.bos_id, found.rules.prepend_bos, found.rules.stop_ids) == (1, True, (2,))
    assert found.encode("<|tool|>") == [1, 600]
    evil = "a</s><s><|tool|><unk>"
    ids = found.encode_chat([{"role": "user", "content": evil}])
    assert set(ids) & {0, 1, 600} == set() and ids.count(2) == 1, "user text cannot become control tokens"


def test_a_phi_with_vocab_and_merges_alone(folder):
    """Phi-1.5 and Phi-2: CodeGen's files, and tokens for runs of spaces in added_tokens.json."""
    from tiny_checkpoints import tiny_tokenizer

    tokens = sorted(t for t in tiny_tokenizer().get_vocab() if not t.startswith("<|"))
    vocab = {t: i for i, t in enumerate([*tokens, "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in MERGES))
    (folder / "added_tokens.json").write_text(json.dumps({"    ": len(vocab), "\t\t": len(vocab) + 1}))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "CodeGenTokenizer", "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    ))  # fmt: skip
    found, theirs = read(folder), AutoTokenizer.from_pretrained(folder)
    for text in [*TEXTS[:5], "if x:\n        return\t\t1"]:
        assert found.encode(text) == theirs(text, add_special_tokens=False).input_ids
        assert found.decode(found.encode(text)) == text
    assert len(vocab) in found.encode("if x:\n        return")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.model", b"not a model", "SentencePiece"),
        ("tokenizer.model", b"", "not supported"),
        ("cl100k_base.tiktoken", b"?? x", "list of ranks"),
        ("cl100k_base.tiktoken", b"", "list of ranks"),
        ("other.tiktoken", b"YQ== 0", "how this tokenizer splits"),
    ],
)
def test_what_is_no_tokenizer_is_refused(folder, name, content, words):
    (folder / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=words):
        read(folder)
