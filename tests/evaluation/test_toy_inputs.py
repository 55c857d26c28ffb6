"""Texts, pictures, pairs and subjects made of toys are what they say."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from sae.errors import EvaluationError
from sae.evaluation import toy_inputs
from sae.evaluation.pairs import FACTOR
from sae.evaluation.patterns import REACH, WINDOW
from sae.evaluation.toy_inputs import N_FILLERS, toy_images, toy_pairs, toy_text
from sae.evaluation.toy_subjects import BOS, HOOKPOINT, VISUAL_HOOKPOINT, ToyClip, ToyLanguage
from sae.evaluation.toys import Toy, hierarchical, orthogonal, two_modality
from sae.tensors import Kind

TOYS = [
    orthogonal(12, 12, l0=2.0),
    hierarchical(6, branching=1, depth=1, d_in=16, probability=0.2, share=0.5),
    two_modality(6, 3, 16, probability=0.1),
]
EACH = pytest.mark.parametrize("toy", TOYS, ids=["orthogonal", "hierarchical", "two_modality"])


@EACH
def test_a_feature_of_a_text_is_told_by_exactly_one_of_four_tokens(toy: Toy) -> None:
    sample, drawn = toy_text(toy, 400)
    token, n_features = sample.rows.token, len(toy.directions)
    assert token is not None
    here = torch.arange(len(token))
    told = torch.zeros_like(drawn.fired)
    for back in range(REACH + 1):
        word = token.roll(back) - N_FILLERS - back * (n_features + 1)
        some = (word >= 0) & (word < n_features) & (here >= back)
        assert not told[here[some], word[some]].any()
        told[here[some], word[some]] = True
    assert torch.equal(told, drawn.fired)
    bearing = sample.x.any(1).reshape(400, WINDOW)
    assert (bearing.sum(1) <= 1).all() and drawn.fired.sum(1).max() <= REACH + 1
    assert torch.equal(sample.x[~bearing.flatten()], torch.zeros_like(sample.x[~bearing.flatten()]))
    assert sample.rows.position.max() + 1 == toy_inputs.PASSAGES_PER_EXAMPLE * WINDOW
    assert toy.possible(drawn.fired).all()


def test_rows_of_a_text_are_rows_of_the_toy() -> None:
    toy = orthogonal(12, 12, l0=2.0)
    sample, drawn = toy_text(toy, 400)
    torch.testing.assert_close(sample.x, drawn.codes @ toy.directions)
    share = drawn.fired.double().sum(0) / 400
    torch.testing.assert_close(share, toy.probabilities.double(), atol=0.08, rtol=0)


@EACH
def test_pictures_show_one_concept_in_one_facet_in_one_cell(toy: Toy) -> None:
    images = toy_images(toy, 200, grid=(2, 3))
    sample, fired = images.sample, images.drawn.fired
    facets = toy.leaders[-4:]
    assert (fired[:, images.concepts].sum(1) == 1).all() and (fired[:, facets].sum(1) == 1).all()
    concept, facet = (torch.from_numpy(sample.factors[name]) for name in ("concept", "facet"))
    assert fired[torch.arange(200), images.concepts[concept]].all() and fired[torch.arange(200), facets[facet]].all()
    rows = sample.x.reshape(200, 7, -1)
    assert (sample.rows.kind.reshape(200, 7) == torch.tensor([Kind.CLASS] + [Kind.PATCH] * 6)).all()
    torch.testing.assert_close(rows[:, 0], images.drawn.x)
    torch.testing.assert_close(rows[:, 1:].sum(1), images.drawn.x)
    assert (rows[:, 1:].any(2).sum(1) == 1).all()
    masks = torch.from_numpy(images.masks(0, 200, (2, 3)))
    assert torch.equal(masks.sum(1) == 1, fired) and torch.equal(masks.any(2), rows[:, 1:].any(2))
    held = torch.from_numpy(sample.factors["held_out_facet"]) == 1
    pairs = set(zip(concept[held].tolist(), facet[held].tolist(), strict=True))
    assert pairs and all(f == c % 4 for c, f in pairs)
    assert sample.label_names["concept"] == tuple(f"feature_{i}" for i in images.concepts)
    with pytest.raises(EvaluationError, match=r"grid of \(2, 3\), masks are asked for on \(4, 4\)"):
        images.masks(0, 1, (4, 4))


@EACH
def test_pairs_differ_in_one_feature_alone(toy: Toy) -> None:
    sample = toy_pairs(toy, 5)
    first, second = sample.x[::2], sample.x[1::2]
    feature = torch.from_numpy(sample.factors[FACTOR][::2])
    along = ((first - second) * toy.directions[feature]).sum(1)
    assert (along >= toy.magnitude - 1e-5).all()
    torch.testing.assert_close(first - second, along[:, None] * toy.directions[feature], atol=1e-5, rtol=0)
    assert feature.tolist() == [i for i in range(len(toy.directions)) for _ in range(5)]
    assert torch.equal(sample.match[::2], sample.match[1::2])


def test_rows_that_never_occur_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_inputs, "MAX_DRAWS", 2)
    with pytest.raises(EvaluationError, match="only 0 of 10 rows could be drawn"):
        toy_images(dataclasses.replace(orthogonal(8, 8, l0=0.1), probabilities=torch.zeros(8)), 10)


def test_a_toy_language_predicts_its_own_texts_best() -> None:
    toy = orthogonal(12, 12, l0=2.0)
    subject = ToyLanguage(toy.sample(50, torch.Generator().manual_seed(0))[0])
    batch = subject.texts(300, 12)
    assert batch.tokens is not None and (batch.tokens[:, 0] == BOS).all()
    x = subject.run(batch, [HOOKPOINT])[HOOKPOINT]

    def loss(edits: dict | None = None) -> torch.Tensor:
        return F.cross_entropy(subject.forward(batch, edits)[:, :-1].flatten(0, 1), batch.tokens[:, 1:].flatten())

    assert torch.equal(subject.forward(batch), x @ subject.unembed)
    entropy = torch.distributions.Categorical(logits=subject.forward(batch)[:, :-1]).entropy().mean()
    assert float(loss()) == pytest.approx(float(entropy), abs=0.05)
    assert loss({HOOKPOINT: torch.zeros_like}) > loss() + 0.1


def test_a_toy_clip_names_its_pictures() -> None:
    toy = orthogonal(12, 12, l0=2.0)
    features = torch.arange(300) % 12
    subject = ToyClip(toy, 2 * toy.directions[features])
    batch = ToyClip.pictures(torch.arange(290, 300), captions=features[290:])
    output = subject.forward(batch)
    torch.testing.assert_close(output.image, output.text)
    classes = subject.zero_shot_classifier([[str(number)] for number in range(12)])
    assert torch.equal(output.logits(classes).argmax(1), features[290:])
    assert subject.rows(batch, "visual.pooled").keep.shape == (10, 1)
    assert not subject.forward(batch, {VISUAL_HOOKPOINT: torch.zeros_like}).image.any()
