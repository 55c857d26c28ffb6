"""Mixtures whose parts are known by construction are taken apart."""

from pathlib import Path

import pytest
import torch
from toy_joint import LAYER, PARTS, bench, with_few

from sae.errors import ConfigError, InputsError
from sae.inputs.base import Composed
from sae.inputs.concepts import ConceptInputs, World
from sae.lab.concepts import Concepts
from sae.lab.words import arithmetic as method
from sae.lab.words.arithmetic import Arithmetic, Config, knowledge
from sae.lab.words.joint import JointSpace
from sae.lab.words.question import Question, both_parts, spoken
from sae.lab.words.sums import Sum
from sae.lab.workbench import Workbench


def config(**settings: object) -> Config:
    return Config(dictionary="toy", store=Path("toy"), **settings)  # type: ignore[arg-type]


def asked(space: JointSpace, chosen: tuple[str, ...] = (), **settings: tuple[str, ...]) -> Question:
    return Question.of(space.words, space.bench.inputs, chosen, **settings)


@pytest.mark.parametrize("hookpoint", ["visual.embedding", LAYER])
def test_both_parts_of_planted_mixtures_are_found(
    hookpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench(hookpoint))
    found = method.run(config(n_terms=2))
    for side in ("text", "image"):
        assert found.figures[f"{side}, words, both parts"] == 1, side
        assert found.figures[f"{side}, latents, both parts"] == 1, side
        assert found.figures[f"{side}, latents, both parts, shuffled"] == 0, side
    assert found.rows[0]["word"] == "cog" and found.rows[0]["parts"] == "cat + dog"
    assert {"0 (cat)", "1 (dog)"} == {term.partition(" ")[2] for term in found.rows[0]["over_latents"].split(" + ")}
    assert found.figures["text, latents, stability"] == 1 and found.figures["latents, boosted, median rank"] == 1
    assert found.figures["drawn latents, boosted, word rises most"] < 1
    found.save(tmp_path)
    assert (tmp_path / "lab-arithmetic.png").stat().st_size > 5000


def test_words_without_known_parts_are_taken_apart_without_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    found = method.run(config(words=("cog",), over=("dog", "sun"), n_terms=2))
    assert "not known" in found.verdict and not found.pictures and found.rows[0]["parts"] == ""
    assert found.rows[0]["over_words"].endswith(" dog")


def test_any_phrase_is_taken_apart_over_any_from_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    found = method.run(config(words=("big red cat",), over=("big owl", "cat", "red one", "the big one"), n_terms=3))
    (row,) = found.rows
    largest = {term.split(" ", 1)[1] for term in row["over_words"].split(" + ")[:3]}
    assert largest == {"cat", "red one", "the big one"} and row["rank_of_rise"] == 1
    assert {"0 (cat)", "3 (?)", "4 (?)"} == {term.partition(" ")[2] for term in row["over_latents"].split(" + ")}
    assert not any(name.startswith("image") for name in found.figures) and not found.pictures
    assert found.figures["words that are no classes"] == 4
    assert "without pictures or AUC: big red cat, big owl, red one, the big one." in found.verdict
    (row,) = method.run(config(words=("big red cat",), over=("a big one", "a red one"), n_terms=3)).rows
    assert {term.split(" ", 1)[1] for term in row["over_latents"].split(" + ")} == {"0", "3", "4"}, (
        "nothing to speak of"
    )


def test_classes_among_phrases_are_known_from_pictures_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    found = method.run(config(words=("cog", "big owl"), over=("cat", "dog", "red one"), n_terms=2))
    for side in ("text", "image"):
        assert found.figures[f"{side}, words, both parts"] == found.figures[f"{side}, latents, both parts"] == 1
    assert found.figures["image, words, cosine"] == pytest.approx(1, abs=0.1), "of the one word with pictures"
    assert "both parts are found for 100%" in found.verdict and ": big owl, red one." in found.verdict


def test_words_that_a_builtin_subject_never_saw_are_refused() -> None:
    space = JointSpace.of(bench())
    space.words.vocabulary = ("big", "owl", "cat")
    with pytest.raises(InputsError, match=r"never trained on the word 'oul'.* Did you mean 'owl'"):
        asked(space, ("big oul",), over=("cat", "dog"))
    assert asked(space, ("big owl",), over=("cat", "dog")).no_classes == ("big owl",)


@pytest.mark.parametrize(("few", "also"), [(("hat",), 0.0), (("cat",), 0.0), (("hat", "cog"), 0.5)])
def test_mixtures_with_too_few_pictures_count_as_not_found(
    few: tuple[str, ...], also: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: with_few(bench(), *few))
    found = method.run(config(n_terms=2))
    assert found.figures["text, words, both parts"] == 1
    for name in ("words", "latents"):
        assert found.figures[f"image, {name}, both parts"] == 0.5 - also, name
    assert f"{len(few)} of the words have too few examples to be known from pictures" in found.verdict


def test_knowledge_leaves_the_mixtures_out() -> None:
    space = JointSpace.of(bench())
    concepts = Concepts.of(space)
    known = knowledge(concepts, space.bench.latents.responses, ["cat", "dog", "a green owl"], ["cog", "hat"])
    assert known[0].tolist() == pytest.approx([0.5, 0, 0], abs=0.02), "the mixture of cat and dog does not blur it"


def test_what_is_spoken_of_most_has_to_be_the_parts() -> None:
    known = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.4, 0.1]])
    said = spoken(Sum((0, 1), (2.0, 1.0), 1.0), known)
    assert said.tolist() == pytest.approx([1.0, 0.4, 0.1])
    assert both_parts(said, {0, 1}) and not both_parts(said, {0, 2})
    assert not both_parts(spoken(Sum((0,), (1.0,), 1.0), known), {0, 1}), "silence about a part does not find it"


def test_stability_templates_and_sides() -> None:
    space = JointSpace.of(bench())
    question = asked(space)
    assert question.templates == ("a photo of a {}", "a {}") and question.over == ("cat", "dog", "sun", "red")
    texts = Arithmetic.of_texts(space.words, question)
    images = Arithmetic.of_images(space, Concepts.of(space), question, ())
    for side in (texts, images):
        assert set(side.over_words()[1].terms) >= {2, 3}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"chosen": (" ",)}, InputsError, "the phrase is empty"),
        ({"over": ("cat",)}, ConfigError, "name what to take apart, and over what"),
        ({"templates": ("a photo",)}, ConfigError, "no place for the word"),
    ],
)
def test_questions_that_make_no_sense_are_refused(settings: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        asked(JointSpace.of(bench()), **settings)


def test_unknown_labels_of_images_are_refused_with_the_nearest_one() -> None:
    space = JointSpace.of(bench())
    with pytest.raises(InputsError, match=r"no label 'concept=catt'.* Did you mean 'concept=cat'"):
        Arithmetic.of_images(space, Concepts.of(space), asked(space), ("concept=catt",))
    pets = Arithmetic.of_images(space, Concepts.of(space), asked(space), ("concept=cat", "concept=dog"))
    assert pets.unseen == ["cog", "hat", "sun", "red"], "other pictures than those asked for are not taken"


def test_the_concept_world_knows_its_mixtures() -> None:
    inputs = ConceptInputs(World(), "score", 4)
    assert isinstance(inputs, Composed)
    parts = inputs.parts()
    assert len(parts) == 12 and parts["dax"] == ("happy", "sad") and parts["yeld"] == ("sick", "afraid")
    assert PARTS.keys().isdisjoint(parts)
