"""Doses, generations and answers on subjects whose response is known, and the command on small real ones."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from live_catalogs import image_catalog, picture_bytes, text_catalog
from planted import N_CLASSES, OTHER, OWN, PLACE, bench, latent_of

from sae import cli
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import ConfigError, DictionaryError, EvaluationError, InputsError, StoreError
from sae.evaluation.toy_subjects import HOOKPOINT, ToyLanguage
from sae.lab.change import steer
from sae.lab.change.answers import NextTokens, answers_of, generate
from sae.lab.change.beside import CONTROLS, Rival, concept_of, controls
from sae.lab.change.doses import Bed, Curve, Response, Steering, strength_at_cost
from sae.lab.change.interventions import latent_parts
from sae.lab.change.steered import Steered

VOCAB, WIDTH = 12, 5


class Tokenizer:
    def decode(self, tokens: Any) -> str:
        return " ".join(f"t{int(token)}" for token in tokens)


def language() -> Any:
    subject = ToyLanguage(torch.randn(VOCAB, WIDTH, generator=torch.Generator().manual_seed(1)))
    subject.tokenizer = Tokenizer()  # type: ignore[attr-defined]
    return subject


def dictionary() -> TopK:
    found = TopK(TopKConfig(d_sae=6, k=2), WIDTH)
    for number, parameter in enumerate((found.W_enc_rows, found.W_dec)):
        parameter.data.copy_(torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(number)))
    return found.eval()


def test_an_added_direction_moves_logits_by_what_it_writes() -> None:
    subject, which = language(), dictionary()
    batch = subject.texts(3, 17)
    bed = Bed(subject, NextTokens(subject), batch, HOOKPOINT, HOOKPOINT, "add")
    steering = Steering("latent 2", latent_parts(which, [2]), unit=0.5)
    now = bed.answers.log_probs(batch, bed.edits(steering, 3.0, batch))
    with torch.no_grad():
        logits = (subject.table[batch.tokens] + 1.5 * which.W_dec[2]) @ subject.unembed
    every_eighth = logits[:, [8, 16]].flatten(0, 1)
    assert torch.allclose(now, every_eighth.log_softmax(-1), atol=1e-5), "the first is BOS, which is not counted"
    probability, kl = bed.steered(steering, 3.0)
    assert torch.allclose(probability, now.exp().mean(0))
    reference = torch.nn.functional.kl_div(now, bed.clean, log_target=True, reduction="none").sum(1).mean()
    assert kl == pytest.approx(float(reference), abs=1e-6) and kl > 0


def test_no_dose_is_no_change_at_no_cost() -> None:
    subject = language()
    bed = Bed(subject, NextTokens(subject), subject.texts(3, 17), HOOKPOINT, HOOKPOINT, "add")
    (row,) = Curve.of(bed, Steering("latent 0", latent_parts(dictionary(), [0]), 1.0), [0.0]).rows(4)
    assert row["kl"] == 0 and row["probability"] == float(bed.clean[:, 4].exp().mean())


def test_a_control_writes_as_much_at_the_same_positions() -> None:
    own = Steering("latent 1", latent_parts(dictionary(), [1]), 2.0)
    control = own.along("direction", torch.ones(WIDTH))
    x = torch.randn(20, WIDTH)
    assert torch.equal(own.parts.read(x)[0], control.parts.read(x)[0]) and control.unit == own.unit
    assert torch.allclose(control.parts.directions.norm(), own.parts.directions.norm())
    assert torch.allclose(control.parts.directions / control.parts.directions[0, 0], torch.ones(1, WIDTH))


def test_generation_is_the_subjects_own_word_by_word_and_repeats_itself() -> None:
    subject = language()
    prompt = subject.texts(1, 3)
    nothing = lambda batch: {}  # noqa: E731
    greedy, last = generate(subject, prompt, nothing, 6), int(prompt.tokens[0, -1])
    for token in greedy:
        assert token == int((subject.table[last] @ subject.unembed).argmax())
        last = token
    sampled = [generate(subject, prompt, nothing, 20, 2.0, seed) for seed in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2] and len(sampled[0]) == 20


def test_generation_under_an_intervention_applies_it_to_every_prefix() -> None:
    subject, seen = language(), []
    target = 7
    push = 100 * torch.linalg.lstsq(subject.unembed.T, torch.eye(VOCAB)[target][:, None]).solution[:, 0]

    def edits(batch: Any) -> dict[str, Any]:
        seen.append(batch.tokens.shape[1])
        return {HOOKPOINT: lambda x: x + push}

    best = int((push @ subject.unembed).argmax())
    assert generate(subject, subject.texts(1, 3), edits, 4) == [best] * 4
    assert seen == [3, 4, 5, 6]


def test_the_answer_that_moves_most_is_the_latents_own_class() -> None:
    found = bench()
    answers = answers_of(found, PLACE)
    batch = found.inputs.batch(0, 8)
    for concept in range(N_CLASSES):
        bed = Bed(found.subject, answers, batch, PLACE, PLACE, "add")
        steering = Steering("own", latent_parts(found.dictionary, [latent_of(concept)]), OWN)
        curve = Curve.of(bed, steering, [-1.0, 0.0, 1.0, 3.0])
        assert curve.moved_most() == concept
        rising = [row["probability"] for row in curve.rows(concept)]
        assert rising == sorted(rising) and rising[-1] > 0.9
    assert answers.name(1) == "class 1" and OTHER < OWN


def beds(found: Any, kind: Any = "add") -> list[Bed]:
    """Return eight images of each half."""
    answers = answers_of(found, PLACE)
    return [Bed(found.subject, answers, found.inputs.batch(n, n + 8), PLACE, PLACE, kind) for n in (0, 80)]


def test_a_dose_is_chosen_on_one_half_and_scored_on_the_other() -> None:
    clean, strengths = torch.tensor([0.2, 0.8]), (0.0, 1.0, 2.0)
    matched = Curve("one", strengths, clean, torch.tensor([[0.2, 0.8], [0.7, 0.3], [0.6, 0.4]]), torch.arange(3.0))
    scored = Curve("one", strengths, clean, torch.tensor([[0.2, 0.8], [0.3, 0.7], [0.9, 0.1]]), torch.arange(3.0) * 2)
    response = Response(matched, scored)
    assert response.strength(0) == 1 and response.move(0) == pytest.approx(0.1) and response.kl(0) == 2
    found = bench()
    steering = Steering("own", latent_parts(found.dictionary, [latent_of(1)]), OWN)
    for curve, bed in zip(("matched", "scored"), both := beds(found), strict=True):
        of = getattr(Response.of(both, steering, [0.0, 2.0]), curve)
        assert torch.equal(of.odds[1], bed.steered(steering, 2.0)[0]) and of.kl[0] == 0


@pytest.mark.parametrize(("kind", "towards"), [("add", 1.0), ("add", -1.0), ("scale", 3.0), ("remove", 1.0)])
def test_the_strength_at_a_cost_costs_it(kind: Any, towards: float) -> None:
    found = bench()
    bed = beds(found, kind)[0]
    steering = Steering("own", latent_parts(found.dictionary, [latent_of(1)]), OWN)
    cost = bed.steered(steering, towards)[1] / 3
    strength = strength_at_cost(bed, steering, cost, towards)
    assert bed.steered(steering, strength)[1] == pytest.approx(cost, rel=0.05) and cost > 0
    neutral = 1 if kind == "scale" else 0
    assert min(neutral, towards) < strength < max(neutral, towards)
    assert strength_at_cost(bed, steering, 1e9, towards) == neutral + 4 * (towards - neutral)


def test_other_directions_of_the_answers_concept_stand_beside_it() -> None:
    found = bench()
    both, own = beds(found), Steering("latent", latent_parts(found.dictionary, [latent_of(2)]), OWN)
    concept = concept_of(found, "class 2", latent_of(2))
    assert not isinstance(concept, str) and concept[1] == "class 2"
    directions = concept[0].directions("class 2")
    assert list(directions) == ["difference of means", "linear probe", "best neuron"]
    x, member = found.sample.x, found.sample.table.columns[found.sample.item, 2] & found.sample.match[found.sample.item]
    expected = x[member].mean(0) - x[found.sample.match[found.sample.item]].mean(0)
    assert torch.allclose(directions["difference of means"], expected, atol=1e-5)
    side = found.neurons.auc[0][:, 2] - 0.5
    neuron = int(side.abs().argmax())
    assert torch.equal(directions["best neuron"], torch.eye(x.shape[1])[neuron] * side[neuron].sign())
    latent = Response.of(both, own, (0.0, 1.0, 2.0))
    rivals = [Rival.of(both, own, latent, own.along(*named), 2) for named in directions.items()]
    means, _, neuron = rivals
    assert means.kl == pytest.approx(latent.kl(2), rel=0.1) and means.move > 0.9 * latent.move(2)
    assert neuron.behind.low > 0 and neuron.behind.mean == pytest.approx(latent.move(2) - neuron.move, abs=1e-5)
    same = Rival.of(both, own, latent, own.along("itself", found.dictionary.W_dec[latent_of(2)].detach()), 2)
    assert same.strength == pytest.approx(latent.strength(2), rel=0.02) and abs(same.behind.mean) < 0.01


def test_what_an_answer_without_a_label_stands_for_is_the_latents_own_label() -> None:
    found = bench()
    concept = concept_of(found, "something else", latent_of(3))
    assert not isinstance(concept, str) and concept[1] == "thing=class 3"
    assert "best neuron" in concept[0].directions("thing=class 3")
    blind = replace(found, inputs=SimpleNamespace())  # type: ignore[arg-type]
    assert concept_of(blind, "class 2", 0) == "the inputs have no labels"


def test_a_verdict_says_what_is_not_distinguishable() -> None:
    found = bench()
    both, own = beds(found), Steering("latent 1", latent_parts(found.dictionary, [latent_of(1)]), OWN)
    strengths = (0.0, 1.0, 2.0)
    latent = Response.of(both, own, strengths)
    groups = controls(found, own, [latent_of(0), latent_of(2)], 3)
    assert {kind: len(group) for kind, group in groups.items()} == dict(zip(CONTROLS, (2, 3, 3), strict=True))
    random = {kind: [Response.of(both, one, strengths) for one in group] for kind, group in groups.items()}
    twin = own.along("twin", found.dictionary.W_dec[latent_of(1)].detach())
    twins = Rival.of(both, own, latent, twin, 1)
    told = Steered(1, "class 1", latent, random, [0.1, 0.3], "class 1", [twins]).finding([], {}).verdict
    assert "Strength 2, chosen on the other half" in told and "less than the latent" in told
    assert "the latent is not distinguishable from twin." in told
    among = Steered(1, "class 1", latent, {CONTROLS[0]: [latent]}, [0.1], "no labels", []).finding([], {})
    assert "not distinguishable from them" in among.verdict and "No other directions" in among.verdict
    assert among.figures["move: controls' 95th percentile"] == pytest.approx(abs(latent.move(1)))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    image_catalog(folder)
    (folder / "red.png").write_bytes(picture_bytes())
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    text_catalog(folder)
    return folder


def settings(folder: Path, out: Path) -> list[str]:
    few = ["--n-examples", "4", "--n-controls", "3", "--n-tokens", "3"]
    return ["--dictionary", str(folder / "dictionary"), "--store", str(folder / "store"), "--out", str(out), *few]


def firing(folder: Path) -> int:
    """Return a latent that fires."""
    from sae.activations.store import ActivationStore
    from sae.dictionaries.io import load_dictionary

    which = load_dictionary(folder / "dictionary")
    store = ActivationStore(folder / "store")
    return int(which.encode(store.vectors(which.provenance["hookpoint"]).read(0, 200)).n_fired().argmax())


def test_the_command_on_text_without_labels(texts: Path, tmp_path: Path) -> None:
    command = ["lab", "steer", *settings(texts, tmp_path), "--latent", str(firing(texts)), "--prompt", "the cat"]
    assert cli.main(command) == 0
    found = json.loads((tmp_path / "steer.json").read_text())
    assert [row["strength"] for row in found["rows"]] == [-2, -1, 0, 0.5, 1, 2, 4]
    assert all({"answers", "likeliest", "sampled"} < set(row) for row in found["rows"])
    assert "the inputs have no labels" in found["verdict"]
    assert found["rows"][2]["kl"] == 0 and found["figures"]["kl, nats"] > 0
    assert (tmp_path / "lab-steer.png").stat().st_size
    again = tmp_path / "again"
    assert cli.main([*command, "--out", str(again)]) == 0
    assert (again / "steer.json").read_bytes() == (tmp_path / "steer.json").read_bytes()


def test_the_command_on_pictures(images: Path, tmp_path: Path) -> None:
    command = ["lab", "steer", *settings(images, tmp_path), "--latent", str(firing(images))]
    picture = [
        "--picture",
        str(images / "red.png"),
        "--kind",
        "clamp",
        "--at",
        "cls",
        "3",
        "-1",
        "-9:-7",
        "--unit",
        "norm",
    ]
    assert cli.main([*command, *picture, "--target", "cat"]) == 0
    found = json.loads((tmp_path / "steer.json").read_text())
    assert found["settings"]["at"] == ["cls", 3, -1, "-9:-7"]
    assert "Of 'cat' at the same cost" in found["verdict"] and "move: best neuron" in found["figures"]
    assert "'cat'" in found["verdict"] and "'dog'" in found["rows"][0]["answers"]


def test_mistakes(images: Path, texts: Path, tmp_path: Path) -> None:
    common = {"dictionary": str(images / "dictionary"), "store": images / "store", "n_examples": 4}
    with pytest.raises(DictionaryError, match="no latent 24"):
        steer.run(steer.Config(**common, latent=24))
    with pytest.raises(ConfigError, match=r"no answer 'caat' among 2 classes\..*cat"):
        steer.run(steer.Config(**common, latent=firing(images), target="caat"))
    with pytest.raises(
        ConfigError, match=r"at: 17 is no position that may change: in example 0 of 4 there are 17, .*cls"
    ):
        steer.run(steer.Config(**common, latent=firing(images), at=(17,)))
    with pytest.raises(ConfigError, match="at: 'here' is no position"):
        steer.Config(**common, latent=0, at=("here",))
    for path, told in (
        (tmp_path / "none.png", "No such file"),
        (tmp_path, "Is a directory"),
        (images / "red.txt", "must be PNG"),
    ):
        (images / "red.txt").write_text("red")
        with pytest.raises(InputsError, match=f"picture: {path}.*{told}"):
            steer.run(steer.Config(**common, latent=firing(images), picture=path))
    with pytest.raises(ConfigError, match="prompt: the dictionary reads pictures"):
        steer.run(steer.Config(**common, latent=firing(images), prompt="a cat"))
    with pytest.raises(StoreError, match="not an activation store"):
        steer.run(steer.Config(**common | {"store": tmp_path}, latent=0))
    with pytest.raises(ConfigError, match="two or more and rise"):
        steer.Config(**common, latent=0, strengths=(1.0, 0.0))
    blind = bench()
    blind.inputs.classes = None  # type: ignore[attr-defined]
    with pytest.raises(EvaluationError, match="no classes"):
        answers_of(blind, PLACE)
