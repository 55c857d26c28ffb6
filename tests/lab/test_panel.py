"""Panels of answers on a subject in which every class has a direction of its own."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from planted import N_CLASSES, OTHER, OWN, PLACE, PlantedClip, bench, latent_of

from sae.activations.store import Provenance
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import ConfigError, DictionaryError, EvaluationError
from sae.evaluation.sample import Sample
from sae.evaluation.toy_subjects import HOOKPOINT, ToyLanguage
from sae.features.removal import copied
from sae.lab.change import ablate
from sae.lab.change.answers import TextClasses
from sae.lab.change.interventions import Change, edits, latent_parts, vector_parts
from sae.lab.change.panel import coded_parts, open_panel, panel_codes
from sae.lab.change.positions import FIRING
from sae.lab.change.removals import removals
from sae.lab.change.rivals import BY_EFFECT, METHODS, RIVALS, Candidates, probes
from sae.lab.workbench import Workbench
from sae.subjects.vision import ClipOutput
from sae.tensors import Batch

VOCAB = 7


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
    change, latent = Change("clamp", 3.0, at=FIRING), latent_of(1)
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


def test_answers_without_latents_are_those_with_them_taken_out_one_by_one() -> None:
    found = bench()
    panel = open_panel(found, 4, 0)
    codes = panel_codes(panel, found.dictionary)
    deviation = torch.linspace(0.5, 2, len(codes))[:, None]
    for normalised in (codes, replace(codes, row_mean=deviation, row_deviation=deviation)):
        for latents in ([2], [0, 3], [3, 1, 0, 2]):
            expected = panel.changed(coded_parts(found.dictionary, normalised, latents), Change("remove"))
            assert torch.allclose(panel.without(found.dictionary, normalised, latents), expected, atol=1e-6)
    with pytest.raises(DictionaryError, match="no latent 4"):
        panel.without(found.dictionary, codes, [1, 4])


def test_the_best_neuron_is_the_one_that_tells_most_on_either_side() -> None:
    found = bench()
    found.sample.x[:, 2] = -3.0 * (found.sample.rows.example % N_CLASSES == 1)
    signed = found.neurons.auc[0][:, 1]
    assert signed[2] == 0 and signed.max() < 1
    candidates = Candidates(found, "thing")
    assert candidates.neurons("class 1", 2)[0] == 2
    codes = panel_codes(open_panel(found, 2, 0), found.dictionary)
    assert candidates.parts("best neuron", "class 1", codes).directions.tolist() == [[0, 0, 1, 0]]


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


class TextInputs:
    """Texts of a toy, labelled by the token at each position."""

    label_names, bookkeeping, classes = {"token": [f"t{n}" for n in range(VOCAB)]}, (), None

    def __init__(self, texts: Batch) -> None:
        self.texts = texts

    def batch(self, start: int, stop: int) -> Batch:
        return copied(self.texts, torch.arange(start, stop))

    def describe(self) -> dict[str, Any]:
        return {"kind": "toy"}


def text_bench() -> Workbench:
    """Return a workbench over texts of a toy: rows are all tokens but BOS."""
    subject = ToyLanguage(torch.randn(VOCAB, 5, generator=torch.Generator().manual_seed(1)))
    texts = subject.texts(40, 20)
    assert texts.tokens is not None
    keep = torch.ones(40, 20, dtype=torch.bool)
    keep[:, 0] = False
    example, position = keep.nonzero(as_tuple=True)
    kind = torch.zeros(len(example), dtype=torch.uint8)
    labels = {"token": texts.tokens[keep].numpy()}
    names = TextInputs.label_names
    sample = Sample(
        x=subject.table[texts.tokens][keep], rows=Provenance(example=example, position=position, kind=kind),
        pooled=False, labels=labels, factors=labels, label_names=names, match=example % 2 == 0,
    )  # fmt: skip
    which = TopK(TopKConfig(d_sae=8, k=3), 5)
    for number, parameter in enumerate((which.W_enc_rows, which.W_dec)):
        parameter.data.copy_(torch.randn(8, 5, generator=torch.Generator().manual_seed(number)))
    which.provenance = {"hookpoint": HOOKPOINT}
    found = Workbench(which.eval(), subject, TextInputs(texts), None)  # type: ignore[arg-type]
    found.__dict__["sample"] = sample
    return found


def test_a_panel_of_texts_scores_the_next_token_by_the_label_of_the_one_before() -> None:
    found = text_bench()
    subject: Any = found.subject
    panel = open_panel(found, per_concept=0, n_examples=6)
    batch = copied(found.inputs.texts, torch.arange(1, 12, 2))  # type: ignore[attr-defined]
    assert panel.counted.sum() == len(panel.member) == 6 * 18, "no answer at BOS, none after the last token"
    tokens = batch.tokens[:, 1:-1].flatten()
    for number, name in enumerate(panel.names):
        assert torch.equal(panel.member[:, number], tokens == int(name.removeprefix("token=t")))
    parts = latent_parts(found.dictionary, [1])
    scaled = edits(parts, change := Change("scale", 3.0), HOOKPOINT, rows=subject.rows(batch, "tokens"))
    for answers, logits in (
        (panel.clean, subject.forward(batch)),
        (
            panel.changed(parts, change),
            subject.forward(batch, scaled),
        ),
    ):
        log_p = logits[:, 1:-1].log_softmax(-1).gather(-1, batch.tokens[:, 2:, None]).flatten()
        assert torch.allclose(answers[:, 0], log_p, atol=1e-5)
        assert torch.equal(answers[:, 1] == 1, (logits[:, 1:-1].argmax(-1) == batch.tokens[:, 2:]).flatten())
    assert panel.halved(torch.tensor([-1.0, -1.0]), torch.tensor([-1.7, -1.6])).tolist() == [True, False]
    two = panel.of_families(["token"])
    assert two.names == panel.names


def test_by_effect_a_concept_without_items_to_choose_on_has_no_part() -> None:
    found = text_bench()
    panel, matched = (open_panel(found, 0, 6, match=match) for match in (False, True))
    member = matched.member.clone()
    member[:, 2] = False
    candidates = Candidates(found, None, replace(matched, member=member))
    for method in METHODS:
        assert candidates.can_choose(method, panel.names[2]) == (method not in BY_EFFECT)
        assert candidates.can_choose(method, panel.names[1])
    (by_effect,) = removals(panel, candidates, "latent by effect", [1.0])
    (plain,) = removals(panel, candidates, "latent", [1.0])
    assert by_effect.own.isnan().tolist() == [number == 2 for number in range(len(panel.names))]
    assert not plain.own.isnan().any()
    equal = dict.fromkeys(RIVALS, plain)
    found_by = {**{method: [plain] for method in METHODS}, "latent by effect": [by_effect]}
    figures = ablate.finding(panel, found_by, equal, {}, "score").figures
    assert figures["of them too rare to choose for by effect"] == 1 and figures["of them too rare to choose for"] == 0


def test_texts_answer_with_the_class_whose_images_are_nearest() -> None:
    found = bench()
    subject: Any = found.subject
    subject.forward = lambda batch, edits=None: (
        PlantedClip.forward(subject, batch)
        if batch.images is not None
        else ClipOutput(
            None, edits["text"](torch.eye(N_CLASSES)[batch.tokens[:, 0]]), torch.tensor(2.0), torch.zeros(())
        )
    )
    answers = TextClasses(subject, found)
    tokens = torch.arange(N_CLASSES)[:, None]
    plain = answers.log_probs(Batch(first_example=0, tokens=tokens), {"text": lambda x: x})
    assert plain.argmax(1).tolist() == list(range(N_CLASSES))
    turned = answers.log_probs(Batch(first_example=0, tokens=tokens), {"text": lambda x: x.roll(1, 1)})
    assert turned.argmax(1).tolist() == [1, 2, 3, 0]
