"""Texts: the language is that of the captions, and a planted phrase is found."""

import json
from math import log2
from pathlib import Path

import pytest
import torch
from toy_joint import NAMES, bench, with_few

from sae.errors import ConfigError, DictionaryError
from sae.features.live.words import PLAIN
from sae.lab.words import text as method
from sae.lab.words.joint import JointSpace
from sae.lab.words.text import SMOOTHING, Bigrams, Config, TextSearch, known_captions, naming
from sae.lab.workbench import Workbench

VOCABULARY = ("a", "photo", "of", *NAMES[:6])


def config(**settings: object) -> Config:
    return Config(dictionary="toy", store=Path("toy"), vocabulary=VOCABULARY, **settings)  # type: ignore[arg-type]


def searching(**settings: object) -> TextSearch:
    space = JointSpace.of(bench())
    made = config(**settings)
    return TextSearch(space.words, VOCABULARY, Bigrams(known_captions(space.bench), VOCABULARY), made)


def test_bigrams_are_counted() -> None:
    language = Bigrams(["a cat", "a dog", "the cat"], ["a", "the", "cat", "dog"])
    n = 5 * SMOOTHING
    expected = [(2 + SMOOTHING) / (3 + n), (1 + SMOOTHING) / (2 + n), (2 + SMOOTHING) / (2 + n)]
    assert language("a cat") == pytest.approx(sum(map(log2, expected)) / 3)
    assert language("a cat") > language("cat a") and language("dog dog") < -2
    assert Bigrams([], ["a"])("anything") == 0


def test_words_are_ranked_by_the_cosine() -> None:
    search = searching()
    place = search.words.towards(["sun"], PLAIN)[0]
    assert search.ranked(place)[0] == "sun"


@pytest.mark.parametrize("beam", [1, 4])
def test_a_planted_phrase_is_found(beam: int) -> None:
    search = searching(prior=0.0)
    for phrase in ("red cat", "sun", "big red owl"):
        place = search.words.towards([phrase], PLAIN)[0]
        found = search.found(place, beam)
        assert set(found.split()) - {"a", "photo", "of"} == set(phrase.split()), phrase


def test_the_prior_makes_texts_read_like_captions() -> None:
    place = searching().words.towards(["cat"], PLAIN)[0]
    assert searching(prior=0.2).found(place, 4) == "a photo of a cat"[-5:]
    assert "cat" in searching(prior=0.2).found(place, 1).split()


def test_a_beam_of_everything_is_as_good_as_trying_everything() -> None:
    search = searching(prior=0.05, beam=200, n_words=2, n_tried=len(VOCABULARY))
    place = torch.randn(16, generator=torch.Generator().manual_seed(4))
    pairs = [f"{one} {other}" for one in VOCABULARY for other in VOCABULARY if one != other]
    everything = [*VOCABULARY, *pairs]
    scores = search.scores(place, everything)
    assert search.found(place, 200) == everything[int(scores.argmax())]


def test_a_text_names_what_it_holds_as_a_word() -> None:
    assert naming(["a cat", "category", "the hat"], ["cat", "cat", "hat"]).tolist() == [True, False, True]


def test_a_whole_run_names_the_planted_concepts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    found = method.run(config())
    assert found.figures["latents, beam, names the concept"] == 6 / len(NAMES), "all but the mixtures"
    assert found.figures["latents, beam, names the next concept"] == 0
    assert found.figures["latents, cosine of the text"] > found.figures["latents, cosine of random captions"] + 0.3
    found.save(tmp_path)
    assert len(json.loads((tmp_path / "text.json").read_text())["rows"]) == len(NAMES)
    assert (tmp_path / "lab-text.png").stat().st_size > 5000
    (row,) = method.run(config(latents=(3,))).rows
    assert row["latent"] == 3 and "red" in row["beam"].split()


def test_concepts_with_too_few_examples_count_as_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: with_few(bench(), "owl"))
    found = method.run(config())
    assert found.figures["n_concepts"] == len(NAMES) and found.figures["concepts with too few examples"] == 1
    assert found.figures["latents, beam, names the concept"] == 5 / len(NAMES)
    assert "1 of the concepts had too few examples" in found.verdict


def test_a_latent_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    with pytest.raises(DictionaryError, match="no latent 12; they are numbered 0 to 11"):
        method.run(config(latents=(12,)))


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="beam"):
        config(beam=0)
