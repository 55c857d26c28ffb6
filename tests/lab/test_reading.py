"""Words drawn for a subject with latents that read, one that sees any text, and latents that see things."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from live_catalogs import image_catalog
from scipy.stats import spearmanr
from toy_reader import NAMES, TEXTURE, N, ToyThings, bench, stamp

from sae.errors import ConfigError, EvaluationError, InputsError
from sae.lab.typography import lettered, reading
from sae.lab.typography.lettered import (
    ANAGRAM,
    CLASS,
    KNOWN,
    LETTERS,
    UNKNOWN,
    Shown,
    Strings,
    drawn,
    strings_of,
    things,
)


@pytest.fixture(scope="module")
def shown() -> Shown:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lettered, "write", stamp)
        made = bench()
        return Shown.of(made, Strings.of(NAMES, ("bird", "tree"), None, 0))


def test_strings_are_what_they_say() -> None:
    strings = Strings.of(("cat", "stone bridge", "aaa"), ("cat", "lamp", "zzyzx"), {"lamp"}, 1)
    by_kind = {
        kind: [t for t, k in zip(strings.texts, strings.kinds, strict=True) if k == kind] for kind in strings.kinds
    }
    assert by_kind[CLASS] == ["cat", "stone bridge", "aaa"]
    assert by_kind[KNOWN] == ["lamp"] and by_kind[UNKNOWN] == ["zzyzx"]
    assert len(set(strings.texts)) == len(strings.texts)
    for text, kind, source in zip(strings.texts, strings.kinds, strings.source, strict=True):
        if kind == ANAGRAM:
            assert sorted(text) == sorted(strings.texts[source]) and text != strings.texts[source]
        if kind == LETTERS:
            assert [c == " " for c in text] == [c == " " for c in strings.texts[source]]
    assert "aaa" not in by_kind[ANAGRAM], "its letters have no other order"


def test_a_drawn_string_is_ink_on_a_plain_ground() -> None:
    light, dark = (drawn("owl", "serif", ground, (40, 60)) for ground in lettered.GROUNDS)
    assert light.shape == (40, 60, 3)
    assert light[0, 0].tolist() == [235] * 3 and light.min() < 60
    assert dark[0, 0].tolist() == [25] * 3 and dark.max() > 200


def test_pictures_with_something_written_on_them_are_no_bare_things() -> None:
    made = bench()
    bare, all_of_them = things(made), things(made, bare=False)
    assert all_of_them.all() and bare.sum() == 0.9 * len(bare)
    assert not bare[::10].any()


def test_a_latent_for_any_text_sees_and_does_not_read(shown: Shown) -> None:
    found = reading.areas(reading.responses_of(bench(), shown)[reading.LATENTS], shown)
    assert found.words[TEXTURE] == found.letters[TEXTURE] == 1 and found.words_from_letters[TEXTURE] == 0.5
    assert found.reads.nonzero().flatten().tolist() == [TEXTURE]
    assert found.for_text.nonzero().flatten().tolist() == list(range(N, 2 * N + 1)), "readers fire for words only"
    assert found.for_any_text.nonzero().flatten().tolist() == [TEXTURE]
    assert not found.for_things.any(), "a thing's latent fires for its name as well"


def test_the_latent_of_each_name_reads_it_and_its_anagram_does_not_excite_it(shown: Shown) -> None:
    responses = reading.responses_of(bench(), shown)[reading.LATENTS]
    words = reading.word_readers(responses, shown)
    # Thing and reader of a class fire for its name alike: both are right, and no other latent is.
    assert (words.unit[:N] % N).tolist() == list(range(N)) and (words.auc[:N] == 1).all()
    assert (words.own_anagram[:N] == 1).all()
    assert (words.shuffled[:N] < 0.5).all()
    unread = torch.tensor([kind in (ANAGRAM, LETTERS) for kind in shown.strings.kinds])
    assert (words.auc[unread] < 0.8).all(), "the subject answers to all of them alike"


def test_reading_beside_seeing(shown: Shown) -> None:
    responses = reading.responses_of(bench(), shown)[reading.LATENTS]
    readers = reading.word_readers(responses, shown)
    see = reading.seeing(responses, shown, readers)
    assert see.seer.tolist() == list(range(N)) and (see.seer_sees == 1).all()
    assert (see.both == 1).all(), "the latent of a thing also fires for its name"
    assert see.agreement[:N].tolist() == pytest.approx([1.0] * N)
    assert see.agreement[N:].isnan().all(), "readers are silent for things"
    assert (see.shuffled[:N] < 1).any()


def test_rows_of_latents_that_never_fire_for_things_are_plain_json(shown: Shown) -> None:
    responses = reading.responses_of(bench(), shown)[reading.LATENTS]
    readers = reading.word_readers(responses, shown)
    read = reading.areas(responses, shown), readers, reading.seeing(responses, shown, readers)
    rows = reading.rows_of(shown, responses, read, 2 * N + 1)
    assert rows[0]["latent"] == TEXTURE and {row["agreement"] for row in rows if row["latent"] >= N} == {""}
    json.dumps(rows, allow_nan=False)


def test_spearman_is_scipys() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(3, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    other[0, 3] = other[0, 4]
    pairs = zip(one.numpy(), other.numpy(), strict=True)
    expected = [float(np.asarray(spearmanr(*pair))[0]) for pair in pairs]
    assert np.allclose(reading.spearman(one, other).numpy(), expected)


def test_the_command_on_a_small_model(tmp_path: Path) -> None:
    image_catalog(tmp_path)
    (tmp_path / "words.txt").write_text("bird\ntree\n")
    found = reading.run(
        reading.Config(
            dictionary=str(tmp_path / "dictionary"), store=tmp_path / "store", words=tmp_path / "words.txt", n_top=3
        )
    )
    found.save(tmp_path / "found")
    assert found.figures["classes"] == 2 and len(found.rows) == 3
    assert "not distinguishable from neurons" in found.verdict, "of two classes nothing can be told"
    assert all((tmp_path / "found" / f"lab-reading.{kind}").stat().st_size for kind in ("png", "pdf", "csv"))


def test_the_verdict_says_what_is_set_apart_from_the_controls() -> None:
    figures = {"classes": 200.0}
    for name, n, text, read in (
        (reading.LATENTS, 1000, 400, 0.98), (reading.SETS[1], 1000, 0, 0.5), ("neurons", 100, 2, 0.97),
        ("random directions", 1000, 500, 0.7),
    ):  # fmt: skip
        figures |= {f"{name}: units": n, f"{name}: units that read": 0, f"{name}: units for text": text}
        figures |= {f"{name}: of these for random letters too": 0, f"{name}: class strings with a unit": read}
        figures |= {f"{name}: classes read and seen by one unit": read / 2}
    figures |= {f"latents: {LETTERS} strings with a unit": 0.9, "latents: class strings with a unit, shuffled": 0.02}
    said = reading.verdict(figures)
    assert "400 fire nine times as much for words as for things, more than neurons (2.0%), less than random" in said
    assert "in unseen fonts, not distinguishable from neurons (97.0%), more than random directions (70.0%), " in said
    assert "more than strings of random letters (90.0%) and names dealt at random (2.0%); before selection 50%" in said
    assert "One latent both reads and sees 49%, not distinguishable from neurons (48.5%), more than random" in said


def test_mistakes(tmp_path: Path) -> None:
    made = bench()
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "empty.txt").write_text("\n")
    for path in (tmp_path / "none.txt", tmp_path, tmp_path / "photo.png", tmp_path / "empty.txt"):
        with pytest.raises(InputsError, match=f"{path} is no file with a word on a line"):
            strings_of(made, path, 0)
    with pytest.raises(InputsError, match="1 class names; at least 2"):
        Strings.of(("cat",), (), None, 0)
    with pytest.raises(ConfigError, match="n_top: must be at least 1"):
        reading.Config(dictionary="d", store=tmp_path, n_top=0)
    made.dictionary.provenance["hookpoint"] = "text.embedding"
    with pytest.raises(EvaluationError, match=r"toy:reader text\.embedding: words are drawn as pictures"):
        reading.open_shown(made, None)
    plain = ToyThings()
    plain.classes = None  # type: ignore[assignment]
    object.__setattr__(made, "inputs", plain)
    with pytest.raises(InputsError, match="0 class names"):
        strings_of(made, None, 0)
