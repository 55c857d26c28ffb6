import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from sae.errors import ConfigError, InputsError
from sae.inputs import text as text_module
from sae.inputs.base import Labelled
from sae.inputs.chat import ROLES, render
from sae.inputs.source import (
    ConceptInputsConfig,
    ImageInputsConfig,
    StdlibInputsConfig,
    TextInputsConfig,
    builtin_inputs,
    open_inputs,
)
from sae.tensors import Kind

DOCUMENTS = [f"The cat number {i} sat on the mat. " * (i % 7 + 1) for i in range(60)]
BOS, EOS, PAD = 0, 1, 2

GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_gpt2_folder):
    return AutoTokenizer.from_pretrained(tiny_gpt2_folder)


@pytest.fixture(scope="module")
def bert_tokenizer(tiny_bert_folder):
    return AutoTokenizer.from_pretrained(tiny_bert_folder)


@pytest.fixture
def chat_tokenizer(tiny_gpt2_folder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2_folder)
    tokenizer.chat_template = GEMMA
    return tokenizer


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in DOCUMENTS))
    return path


def all_tokens(inputs):
    return inputs.batch(0, len(inputs)).tokens


def packed_by_hand(tokenizer, context, bos=True):
    ids = [i for d in DOCUMENTS for i in [*tokenizer(d, add_special_tokens=False)["input_ids"], EOS]]
    width = context - bos
    return [[BOS] * bos + ids[i : i + width] for i in range(0, len(ids) - width + 1, width)]


@pytest.mark.parametrize("bos", [None, False])
def test_packed_windows(jsonl, tokenizer, bos):
    inputs = open_inputs(TextInputsConfig(path=jsonl, context=16, bos=bos), tokenizer=tokenizer)
    expected = packed_by_hand(tokenizer, 16, bos is None)
    assert all_tokens(inputs).tolist() == expected and len(inputs) == len(expected)
    batch = inputs.batch(3, 7)
    assert batch.first_example == 3 and batch.tokens.tolist() == expected[3:7]
    assert bool(batch.attended.all())
    assert ((batch.kind == Kind.BOS) == (batch.tokens == BOS)).all()
    assert ((batch.kind == Kind.SPECIAL) == (batch.tokens == EOS)).all()


def test_sources_of_the_same_documents_agree(jsonl, tmp_path, tokenizer):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"id": range(60), "body": DOCUMENTS}), tmp_path / "documents.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, document in enumerate(DOCUMENTS):
        (folder / f"{i:03}.txt").write_text(document)
    expected = all_tokens(open_inputs(TextInputsConfig(path=jsonl, context=16), tokenizer=tokenizer))
    for config in (
        TextInputsConfig(path=tmp_path / "documents.parquet", column="body", context=16),
        TextInputsConfig(path=folder, context=16),
        {"kind": "text", "path": str(jsonl), "context": 16},
    ):
        assert torch.equal(all_tokens(open_inputs(config, tokenizer=tokenizer)), expected)


def test_long_files_are_read_in_pieces(tmp_path, tokenizer, monkeypatch):
    (tmp_path / "long.txt").write_text("".join(f"line {i} of the text\n" for i in range(300)))
    config = TextInputsConfig(path=tmp_path / "long.txt", context=16)
    whole = all_tokens(open_inputs(config, tokenizer=tokenizer))
    monkeypatch.setattr("sae.inputs.documents._PIECE_CHARACTERS", 100)
    assert torch.equal(all_tokens(open_inputs(config, tokenizer=tokenizer)), whole)
    assert (whole == EOS).sum() <= 1


@pytest.mark.parametrize("packing", ["packed", "none"])
def test_a_limit_takes_the_first_examples(jsonl, tokenizer, packing):
    full = open_inputs(TextInputsConfig(path=jsonl, context=16, packing=packing), tokenizer=tokenizer)
    some = open_inputs(TextInputsConfig(path=jsonl, context=16, packing=packing, n_examples=5), tokenizer=tokenizer)
    assert len(some) == 5 < len(full)
    assert torch.equal(all_tokens(some), full.batch(0, 5).tokens)
    assert len(some._corpus.ids) < len(full._corpus.ids)


def test_one_document_per_example(jsonl, bert_tokenizer):
    config = TextInputsConfig(path=jsonl, context=24, packing="none")
    inputs = open_inputs(config, tokenizer=bert_tokenizer)
    expected = [bert_tokenizer(d, truncation=True, max_length=24)["input_ids"] for d in DOCUMENTS]
    assert len(inputs) == 60
    batch = inputs.batch(10, 20)
    longest = max(map(len, expected[10:20]))
    assert batch.tokens.shape == (10, longest)
    for tokens, attended, kind, ids in zip(batch.tokens, batch.attended, batch.kind, expected[10:20], strict=True):
        assert tokens[attended].tolist() == ids and attended.sum() == len(ids) and attended[: len(ids)].all()
        assert kind[0] == Kind.SPECIAL and kind[len(ids) - 1] == Kind.SPECIAL and (kind[1 : len(ids) - 1] == 0).all()
        assert (tokens[len(ids) :] == bert_tokenizer.pad_token_id).all()


def test_lines_are_documents_where_nothing_is_packed(tmp_path, tokenizer):
    (tmp_path / "lines.txt").write_text("one cat\n\n  two dogs \n")
    inputs = open_inputs(TextInputsConfig(path=tmp_path, packing="none"), tokenizer=tokenizer)
    batch = inputs.batch(0, 2)
    said = [tokenizer.decode(t[a], skip_special_tokens=True) for t, a in zip(batch.tokens, batch.attended, strict=True)]
    assert said == ["one cat", "two dogs"] and bool((batch.kind[:, 0] == Kind.BOS).all())


def test_the_cache_gives_the_same(jsonl, tmp_path, tokenizer, monkeypatch):
    config = TextInputsConfig(path=jsonl, context=16)
    kept = TextInputsConfig(path=jsonl, context=16, cache=tmp_path / "cache")
    first, second = (open_inputs(kept, tokenizer=tokenizer) for _ in range(2))
    monkeypatch.setattr(text_module.TextInputs, "_encode", lambda *_: pytest.fail("tokenized again"))
    third = open_inputs(kept, tokenizer=tokenizer)
    monkeypatch.undo()
    memory = open_inputs(config, tokenizer=tokenizer)
    assert first.fingerprint == second.fingerprint == third.fingerprint == memory.fingerprint
    assert torch.equal(all_tokens(third), all_tokens(memory))
    assert [p.name.count(".") for p in (tmp_path / "cache").iterdir()] == [0]
    jsonl.write_text(json.dumps({"text": "something else " * 50}))
    assert open_inputs(kept, tokenizer=tokenizer).fingerprint != memory.fingerprint


def test_large_corpora_go_to_the_users_cache(jsonl, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(text_module, "_IN_MEMORY_BYTES", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    inputs = open_inputs(TextInputsConfig(path=jsonl, context=16), tokenizer=tokenizer)
    assert len(list((tmp_path / "home" / "sae-dictionaries" / "tokens").iterdir())) == 1
    assert all_tokens(inputs).tolist() == packed_by_hand(tokenizer, 16)


def test_the_fingerprint_depends_on_what_decides_the_examples(jsonl, tokenizer, chat_tokenizer):
    def fingerprint(tokenizer=tokenizer, **settings):
        config = TextInputsConfig(path=jsonl, **{"context": 16, **settings})
        return open_inputs(config, tokenizer=tokenizer).fingerprint

    assert fingerprint() == fingerprint()
    others = [fingerprint(context=17), fingerprint(bos=False), fingerprint(packing="none"), fingerprint(n_examples=4)]
    assert len({fingerprint(), *others}) == 5
    described = open_inputs(TextInputsConfig(path=jsonl, context=16), tokenizer=tokenizer).describe()
    assert json.loads(json.dumps(described))["n_documents"] == 60


CHAT = [
    [
        {"role": "user", "content": "user"},
        {"role": "assistant", "content": " The model sat.\n"},
        {"role": "user", "content": "of"},
        {"role": "assistant", "content": "turn, turn"},
    ],
    [{"role": "system", "content": "Be a cat."}, {"role": "user", "content": "Who?"}],
]


@pytest.fixture
def chat_file(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in CHAT))
    return path


def test_roles_of_characters(chat_tokenizer):
    text, roles = render(chat_tokenizer, CHAT[0])
    assert text == chat_tokenizer.apply_chat_template(CHAT[0], tokenize=False)
    said = {name: "".join(c for c, r in zip(text, roles, strict=True) if r == i) for i, name in enumerate(ROLES)}
    assert said == {"system": "", "user": "userof", "assistant": "The model sat.turn, turn", "tool": ""}


def test_a_template_that_changes_what_is_said_gives_no_roles(chat_tokenizer, caplog):
    chat_tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    text, roles = render(chat_tokenizer, CHAT[1])
    assert text == "BE A CAT.WHO?" and (roles == -1).all() and "changes what is said" in caplog.text


@pytest.mark.parametrize("packing", ["packed", "none"])
def test_conversations(chat_file, chat_tokenizer, packing):
    config = TextInputsConfig(path=chat_file, format="chat", context=120, packing=packing, roles=("assistant",))
    inputs = open_inputs(config, tokenizer=chat_tokenizer)
    assert isinstance(inputs, Labelled)
    batch, role = inputs.batch(0, len(inputs)), inputs.labels(0, len(inputs))["role"]
    assert role.shape == batch.tokens.shape and inputs.label_names["role"][2] == "assistant"
    assert ((batch.kind == Kind.TOKEN).numpy() == (role == 2)).all()
    assert "model sat." in chat_tokenizer.decode(batch.tokens.flatten()[torch.from_numpy(role.flatten() == 2)])
    text = chat_tokenizer.apply_chat_template(CHAT[0], tokenize=False)
    ids = chat_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert batch.tokens[0].tolist() == ids[:120] and (role[~batch.attended.numpy()] == -1).all()
    everything = open_inputs(
        TextInputsConfig(path=chat_file, format="chat", context=120, packing=packing), tokenizer=chat_tokenizer
    )
    kinds = everything.batch(0, len(everything)).kind
    assert ((kinds == Kind.SPECIAL) | (kinds == Kind.BOS)).sum() < (batch.kind == Kind.SPECIAL).sum()


def test_plain_text_has_no_labels(jsonl, tokenizer):
    assert not isinstance(open_inputs(TextInputsConfig(path=jsonl), tokenizer=tokenizer), Labelled)


def test_hub_data_sets_are_streamed(tokenizer, monkeypatch):
    asked = {}

    def load_dataset(name, subset, **options):
        asked.update(name=name, subset=subset, **options)
        return ({"text": d} for d in DOCUMENTS)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    config = TextInputsConfig(hub="someone/texts", split="validation", n_examples=8, context=16)
    inputs = open_inputs(config, tokenizer=tokenizer)
    assert asked["streaming"] and asked["split"] == "validation" and asked["name"] == "someone/texts"
    assert all_tokens(inputs).tolist() == packed_by_hand(tokenizer, 16)[:8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either path or hub"),
        ({"path": "x", "hub": "y", "n_examples": 1}, "either path or hub"),
        ({"hub": "y"}, "n_examples"),
        ({"path": "x", "context": 1}, "at least 2"),
        ({"path": "x", "roles": ["user"]}, "only conversations"),
        ({"path": "x", "packing": "pakced"}, "Did you mean 'packed'"),
    ],
)
def test_settings_that_cannot_be(settings, message, tokenizer):
    with pytest.raises(ConfigError, match=message):
        open_inputs({"kind": "text", **settings}, tokenizer=tokenizer)


def test_errors_name_the_place(tmp_path, jsonl, tokenizer, chat_tokenizer):
    def message(config, tokenizer=tokenizer):
        with pytest.raises(InputsError) as caught:
            open_inputs(config, tokenizer=tokenizer)
        return str(caught.value)

    assert "Did you mean 'documents.jsonl'" in message(TextInputsConfig(path=tmp_path / "document.jsonl"))
    assert "line 1: no column 'txet'. Did you mean 'text'?" in message(TextInputsConfig(path=jsonl, column="txet"))
    assert "no chat template" in message(TextInputsConfig(path=jsonl, format="chat", column="text"))
    assert "list of messages" in message(TextInputsConfig(path=jsonl, format="chat", column="text"), chat_tokenizer)
    assert "one example needs" in message(TextInputsConfig(path=jsonl, context=10**6))
    (tmp_path / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    assert "broken.jsonl, line 2: not JSON" in message(TextInputsConfig(path=tmp_path / "broken.jsonl"))
    (tmp_path / "picture.png").write_bytes(b"")
    assert "cannot read files of this kind" in message(TextInputsConfig(path=tmp_path / "picture.png"))
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    assert "not UTF-8" in message(TextInputsConfig(path=tmp_path / "latin.txt"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    assert "latin.jsonl, line 1: not JSON in UTF-8" in message(TextInputsConfig(path=tmp_path / "latin.jsonl"))
    kept = TextInputsConfig(path=tmp_path / "latin.jsonl", cache=tmp_path / "cache")
    assert "not JSON" in message(kept) and not list((tmp_path / "cache").iterdir()), "nothing half-made is left"
    with pytest.raises(InputsError, match=r"examples \[0, 100000\)"):
        open_inputs(TextInputsConfig(path=jsonl), tokenizer=tokenizer).batch(0, 100000)


def test_what_a_subject_must_bring():
    with pytest.raises(ConfigError, match="tokenizer: use it with a language subject"):
        open_inputs(StdlibInputsConfig())
    with pytest.raises(ConfigError, match="preprocess: use it with a CLIP subject"):
        open_inputs(ImageInputsConfig(path="x"))


def test_inputs_of_built_in_subjects():
    assert builtin_inputs("builtin:stdlib-1l") == StdlibInputsConfig(split="score")
    assert builtin_inputs("builtin:concepts-clip@1") == ConceptInputsConfig(split="score", seed=1, uniform=True)
    with pytest.raises(ConfigError, match="bring inputs"):
        builtin_inputs("language:gpt2")


def test_the_standard_library(monkeypatch, tokenizer):
    monkeypatch.setattr("sae.inputs.stdlib.StdlibText", lambda *args, **options: (args, options))
    opened = open_inputs(StdlibInputsConfig(split="score", n_examples=3, context=32), tokenizer=tokenizer)
    assert opened == (("score", tokenizer), {"n_examples": 3, "context": 32})


def test_values_cut_like_tokens(jsonl, tokenizer):
    inputs = open_inputs(TextInputsConfig(path=jsonl, packing="none", context=9), tokenizer=tokenizer)
    lengths = np.diff(inputs._corpus.ends, prepend=0)
    assert inputs.batch(0, 60).attended.sum(1).tolist() == lengths.tolist()
