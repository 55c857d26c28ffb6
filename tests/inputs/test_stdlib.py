import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sae.errors import ConfigError, InputsError
from sae.inputs import stdlib
from sae.inputs.stdlib import StdlibText
from sae.inputs.stdlib_chunks import write_seen
from sae.tensors import Kind

END = 1


class WordTokenizer:
    """One token per word or blank; ids are stable hashes, so that nothing has to be learnt."""

    bos_token_id = 0
    eos_token_id = END

    def __init__(self) -> None:
        self.texts = 0

    def __call__(self, text: list[str], **options: bool) -> dict[str, list]:
        assert options["return_offsets_mapping"] and not options["add_special_tokens"]
        self.texts += len(text)
        spans = [[found.span() for found in re.finditer(r"\s+|\w+|.", each)] for each in text]
        ids = [[2 + sum(each[a:b].encode()) % 500 for a, b in found] for each, found in zip(text, spans, strict=True)]
        return {"input_ids": ids, "offset_mapping": spans}


def function(number: int) -> str:
    body = "".join(f"    value_{i} = call({number}, {i})  # step {i}\n" for i in range(8))
    return f"\n\ndef work_{number}(self):\n{body}    return value_1\n"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "email").mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "left_out.py").write_text("x = 1\n")
    for name, numbers in {"json.py": range(14), "email/a.py": range(10, 24), "email/b.py": range(24, 34)}.items():
        (tmp_path / name).write_text(f'"""Module {name}."""\n' + "".join(map(function, numbers)))
    return tmp_path


def test_windows_are_packed_and_begin_with_bos(library: Path):
    inputs = StdlibText("train", WordTokenizer(), context=64, root=library)
    batch = inputs.batch(0, len(inputs))
    assert batch.tokens is not None and batch.kind is not None and batch.attended is not None
    assert (batch.tokens[:, 0] == 0).all() and (batch.kind[:, 0] == Kind.BOS).all()
    assert batch.attended.all() and batch.tokens.shape == (len(inputs), 64)
    encoded = WordTokenizer()([c.text for c in inputs.chunks], return_offsets_mapping=True, add_special_tokens=False)
    stream = [token for ids in encoded["input_ids"] for token in [*ids, END]]
    packed = batch.tokens[:, 1:].reshape(-1)
    assert packed.tolist() == stream[: len(packed)] and len(stream) - len(packed) < 63
    assert torch.equal(batch.kind[:, 1:] == Kind.SPECIAL, batch.tokens[:, 1:] == END)


def test_any_range_can_be_made_again(library: Path):
    whole = StdlibText("train+score", WordTokenizer(), context=64, root=library)
    tokens, labels = whole.batch(0, len(whole)).tokens, whole.labels(0, len(whole))
    again = StdlibText("train+score", WordTokenizer(), context=64, root=library)
    for start, stop in [(7, 9), (0, 3), (len(whole) - 2, len(whole)), (4, 4)]:
        part = again.batch(start, stop)
        assert part.first_example == start and torch.equal(part.tokens, tokens[start:stop])
        for family, codes in again.labels(start, stop).items():
            assert np.array_equal(codes, labels[family][start:stop])
    assert again.fingerprint == whole.fingerprint
    assert StdlibText("score", WordTokenizer(), context=64, root=library).fingerprint != whole.fingerprint


def test_text_is_tokenized_only_as_far_as_needed(library: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stdlib, "_CHUNKS_AT_ONCE", 4)
    tokenizer = WordTokenizer()
    few = StdlibText("train", tokenizer, n_examples=3, context=64, root=library)
    assert len(few) == 3 and tokenizer.texts == 4
    every = StdlibText("train", WordTokenizer(), context=64, root=library)
    assert torch.equal(few.batch(0, 3).tokens, every.batch(0, 3).tokens)
    assert len(StdlibText("train", tokenizer, n_examples=10**6, context=64, root=library)) == len(every)


def test_sources_and_labels_point_at_the_text(library: Path):
    inputs = StdlibText("train", WordTokenizer(), context=64, root=library)
    labels = inputs.labels(0, len(inputs))
    roles = inputs.label_names["role"]
    for index in range(0, len(inputs), 7):
        place = 0
        for passage in inputs.sources(index):
            text = (library / passage.path).read_text()[passage.start : passage.stop] if passage.path else ""
            spans = [found.group() for found in re.finditer(r"\s+|\w+|.", text)]
            assert len(spans) == (passage.n_tokens if passage.path else 0)
            for offset, span in enumerate(spans):
                role = roles[labels["role"][index, place + offset]]
                assert (role == "keyword") == (span in ("def", "return") and role != "docstring")
            place += passage.n_tokens
        assert place == 64
    assert (labels["role"][:, 0] == -1).all()


def test_what_cannot_work_is_refused(library: Path):
    with pytest.raises(ConfigError, match="score"):
        StdlibText("scores", WordTokenizer(), root=library)
    with pytest.raises(ConfigError, match="context"):
        StdlibText("score", WordTokenizer(), context=1, root=library)
    inputs = StdlibText("train", WordTokenizer(), n_examples=3, context=64, root=library)
    with pytest.raises(InputsError, match="it has 3"):
        inputs.batch(2, 4)


def test_files_that_do_not_parse_are_counted(library: Path):
    (library / "broken.py").write_text("def f(:\n" + "x = 1  # text\n" * 9)
    inputs = StdlibText("train+dictionary+score", WordTokenizer(), context=64, root=library)
    assert inputs.unlabelled_files() == ["broken.py"]
    rows = [i for i in range(len(inputs)) if any(p.path == "broken.py" for p in inputs.sources(i))]
    assert rows and all((inputs.labels(i, i + 1)["role"] == -1).sum() > 1 for i in rows)


def test_seen_share_is_that_of_the_text_read(library: Path, tmp_path: Path):
    train = StdlibText("train", WordTokenizer(), root=library)
    write_seen(train.chunks, tmp_path)
    assert train.seen_share(tmp_path) == 1.0
    assert StdlibText("score", WordTokenizer(), root=library).seen_share(tmp_path) == 0.0
