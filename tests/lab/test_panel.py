"""Panels of answers on a subject in which every class has a direction of its own."""

import math
from dataclasses import replace

import pytest
import torch
from planted import N_CLASSES, OTHER, OWN, PLACE, PlantedClip, bench, latent_of

from sae.errors import ConfigError, EvaluationError
from sae.lab.interventions import Change, edits, latent_parts, vector_parts
from sae.lab.panel import coded_parts, open_panel, panel_codes
from sae.lab.rivals import METHODS, Candidates, probes


def probability(own: float, other: float) -> float:
    """Return that of the right class, of an image whose embedding has these two coordinates before normalisation."""
    size, scale = math.hypot(own, other), math.exp(2)
    odds = [math.exp(scale * value / size) for value in (own, other)]
    return odds[0] / (sum(odds) + N_CLASSES - 2)


def test_clean_answers_and_those_without_a_latent_are_what_they_must_be() -> None:
    found = bench()
    panel = open_panel(found, per_concept=4, n_examples=0)
    assert panel.names == tuple(f"class {n}" for n in range(N_CLASSES)) and len(panel.member) == 4 * N_CLASSES
    assert panel.clean[:, 0].tolist() == pytest.approx([probability(OWN, OTHER)] * len(panel.member))
    assert panel.clean[:, 1].eq(1).all()
    codes = panel_codes(panel, found.dictionary)
    for concept in range(N_CLASSES):
        parts = coded_parts(found.dictionary, codes, [latent_of(concept)])
        now = panel.by_concept(panel.changed(parts, Change("remove")))
        scores, before = now[:, 0].tolist(), (concept - 1) % N_CLASSES
        assert scores[concept] == pytest.approx(probability(0, OTHER), abs=1e-6) and now[concept, 1] == 0
        assert scores[before] == pytest.approx(probability(OWN, 0)), "its images hold some of this class too"
        others = set(range(N_CLASSES)) - {concept, before}
        assert all(scores[other] == float(panel.by_concept(panel.clean)[other, 0]) for other in others)


def test_a_panel_gives_what_a_run_with_the_edit_gives_and_runs_touched_examples_only() -> None:
    subject = PlantedClip()
    found = bench(subject)
    panel = open_panel(found, 4, 0)
    assert panel.clean.shape == (4 * N_CLASSES, 2)
    subject.n_run = 0
    change, latent = Change("clamp", 3.0, at="firing"), latent_of(1)
    answers = panel.changed(latent_parts(found.dictionary, [latent]), change)
    assert subject.n_run == 8, "images of class 1, and of class 0, which hold some of it"
    examples = found.sample.example[~found.sample.match][: len(panel.member)]
    batch = found.inputs.batch(int(examples[0]), int(examples[-1]) + 1)
    out = subject.forward(batch, edits(latent_parts(found.dictionary, [latent]), change, PLACE))
    right = out.logits(torch.eye(N_CLASSES)).softmax(-1)[torch.arange(len(batch)), batch.images[:, 0, 0, 0].long()]
    assert torch.allclose(answers[:, 0], right, atol=1e-6)


def test_a_subject_that_can_go_on_from_activations_is_not_run_from_the_start() -> None:
    subject = PlantedClip(resumes=True)
    panel, plain = open_panel(bench(subject), 4, 0), open_panel(bench(), 4, 0)
    parts = vector_parts(torch.ones(1, N_CLASSES))
    assert torch.equal(panel.changed(parts, Change("remove")), plain.changed(parts, Change("remove")))
    assert subject.n_run == 0


def test_means_leave_out_items_of_the_concept_that_changes() -> None:
    panel = open_panel(bench(), 2, 0)
    member = panel.member.clone()
    member[:, 1] |= member[:, 0]
    overlapping = replace(panel, member=member)
    values = torch.arange(len(member)).float()[:, None].expand(-1, 2)
    own, other = member[:, 0], member[:, 1]
    assert overlapping.by_concept(values)[1, 0] == values[other, 0].mean()
    assert overlapping.by_concept(values, without=0)[1, 0] == values[other & ~own, 0].mean()
    assert overlapping.by_concept(values, without=0)[0, 0] == values[own, 0].mean()


def test_a_concepts_own_panel_holds_its_items_alone() -> None:
    panel = open_panel(bench(), 3, 0)
    own = panel.of(2)
    assert own.names == ("class 2",) and own.member.tolist() == [[True]] * 3
    assert torch.equal(own.clean, panel.clean[panel.member[:, 2]])
    assert panel.halved(torch.tensor([0.8, 0.8]), torch.tensor([0.4, 0.41])).tolist() == [True, False]


def test_candidates_are_the_planted_directions() -> None:
    found = bench()
    candidates = Candidates(found, "thing", open_panel(found, 2, 0, match=True))
    codes = panel_codes(open_panel(found, 2, 0), found.dictionary)
    for concept in range(N_CLASSES):
        assert candidates.latents(f"class {concept}", 1) == [latent_of(concept)]
        assert candidates.parts("latent", f"class {concept}", codes).directions.shape == (1, N_CLASSES)
    for method in METHODS:
        assert len(candidates.parts(method, "class 3", codes).directions) == 1
    with pytest.raises(EvaluationError, match=r"no label 'class 9'.*class"):
        candidates.latents("class 9", 1)


def test_probes_separate_what_is_separable() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 5, generator=generator) * torch.tensor([1.0, 10, 1, 1, 0.1])
    labels = torch.stack([x[:, 0] > 0, x[:, 4] > 0.05], dim=1)
    weights = probes(x, labels)
    for number, column in enumerate((0, 4)):
        reached = x @ weights[number]
        assert reached[labels[:, number]].min() > reached[~labels[:, number]].max() - 0.3 * reached.std()
        assert int((weights[number].abs() * x.std(0)).argmax()) == column


def test_mistakes() -> None:
    panel = open_panel(bench(), 2, 0)
    with pytest.raises(ConfigError, match="no label of 'rol'"):
        panel.of_families(["rol"])
    blind = bench()
    blind.inputs.classes = None  # type: ignore[attr-defined]
    with pytest.raises(EvaluationError, match="needs images with classes"):
        open_panel(blind, 2, 0)
    encoder = bench()
    encoder.subject.kind = "language"
    with pytest.raises(EvaluationError, match="does not predict the next token"):
        open_panel(encoder, 2, 0)
