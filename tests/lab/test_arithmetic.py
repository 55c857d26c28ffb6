"""Mixtures whose parts are known by construction are taken apart."""

from pathlib import Path

import pytest
import torch
from toy_joint import LAYER, PARTS, bench

from sae.errors import ConfigError, InputsError
from sae.inputs.base import Composed
from sae.inputs.concepts import ConceptInputs, World
from sae.lab.concepts import Concepts
from sae.lab.words import arithmetic as method
from sae.lab.words.arithmetic import Arithmetic, Config, Question, both_parts, knowledge, spoken
from sae.lab.words.joint import JointSpace
from sae.lab.words.sums import Sum
from sae.lab.workbench import Workbench


def config(**settings: object) -> Config:
    return Config(dictionary="toy", store=Path("toy"), **settings)  # type: ignore[arg-type]


def asked(space: JointSpace, **settings: object) -> Question:
    return Question.of(space.words, space.bench.inputs, config(**settings))


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


def test_knowledge_leaves_the_mixtures_out() -> None:
    space = JointSpace.of(bench())
    concepts = Concepts.of(space)
    known = knowledge(concepts, space.bench.latents.responses, [0, 1], [6, 7])
    assert known[0].tolist() == pytest.approx([0.5, 0], abs=0.02), "the mixture of cat and dog does not blur it"


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
        ({"words": ("cogg",)}, InputsError, r"no class is called 'cogg'.* Did you mean 'cog'"),
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
    with pytest.raises(InputsError, match="too few of the images show it"):
        Arithmetic.of_images(space, Concepts.of(space), asked(space), ("concept=cat",))


def test_the_concept_world_knows_its_mixtures() -> None:
    inputs = ConceptInputs(World(), "score", 4)
    assert isinstance(inputs, Composed)
    parts = inputs.parts()
    assert len(parts) == 12 and parts["dax"] == ("happy", "sad") and parts["yeld"] == ("sick", "afraid")
    assert PARTS.keys().isdisjoint(parts)
