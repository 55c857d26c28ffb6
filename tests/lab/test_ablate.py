"""Ablation and lesions of planted concepts, and the commands on small real subjects."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_catalogs import image_catalog
from planted import N_CLASSES, OTHER, OWN, PLACE, bench
from test_panel import probability

from sae import cli
from sae.errors import ConfigError
from sae.lab.change import ablate, lesion
from sae.lab.change.panel import open_panel, panel_codes
from sae.lab.change.removals import COST, NEAR, STEPS, Removal, at_cost, removals
from sae.lab.change.rivals import METHODS, RIVALS, Candidates


def test_removing_a_planted_latent_lowers_its_class_alone() -> None:
    found = bench()
    panel = open_panel(found, 4, 0)
    candidates = Candidates(found, "thing", open_panel(found, 4, 0, match=True))
    (by_effect,) = removals(panel, candidates, "latent by effect", [1.0])
    (whole,) = removals(panel, candidates, "latent", [1.0])
    assert torch.equal(whole.own, by_effect.own)
    own = probability(OWN, OTHER) - probability(0, OTHER)
    assert whole.own.tolist() == pytest.approx([own] * N_CLASSES, abs=1e-6)
    assert (whole.others <= 0).all() and (whole.cost == 0).all() and whole.own_accuracy.eq(1).all()
    assert whole.selective.all() and whole.row()["selective"] == 1


def test_what_lowers_others_as_much_is_not_selective() -> None:
    nothing = torch.zeros(4, dtype=torch.float64)
    own = torch.tensor([0.4, 0.4, -0.1, torch.nan], dtype=torch.float64)
    others = torch.tensor([0.2, 0.21, -0.3, torch.nan], dtype=torch.float64)
    one = Removal("latent", 1.0, own, others, nothing, nothing)
    assert one.selective.tolist() == [True, False, False, False]
    assert one.row()["selective"] == 0.25 and one.row()["own fall"] == pytest.approx(0.7 / 4)


def search(costs_of: Callable[[float], float], cost: float) -> tuple[Removal, int]:
    """Return what is found for a control whose cost is a function of the share, and how many shares it took."""
    nothing, shares = torch.zeros(2, dtype=torch.float64), []

    def measure(share: float) -> Removal:
        shares.append(share)
        return Removal("x", share, nothing, nothing, nothing, nothing + costs_of(share))

    tried = [measure(share) for share in (0.5, 1.0, 2.0)]
    return at_cost(measure, tried, cost), len(shares) - len(tried)


@settings(max_examples=200)
@given(st.floats(0.6, 3), st.floats(1e-4, 1), st.floats(0.02, 3))
def test_controls_cost_no_more_and_hardly_less_than_asked(power: float, scale: float, share: float) -> None:
    cost = scale * share**power
    found, n_measured = search(lambda share: scale * share**power, cost)
    own = found.row()[COST]
    assert n_measured <= STEPS + 1 and own <= cost
    assert own == pytest.approx(scale * found.share**power)
    assert own >= NEAR * cost or found.share == 2.0, "only the largest share may be cheaper"


def test_the_largest_share_that_is_cheap_enough_is_taken() -> None:
    assert search(lambda share: 0.0, 0.0)[0].share == 2.0, "what costs nothing is removed as far as it goes"
    dips = {0.5: 0.002, 1.0: 0.0005, 2.0: 0.0006}
    passed, n_measured = search(dips.__getitem__, 0.001)
    assert passed.share == 2.0 and n_measured == 0, "a smaller share that costs more is passed"
    assert search(lambda share: 1e-4 * share, 0.01)[0].share == 2.0
    dear, n_measured = search(lambda share: 0.1, 0.01)
    assert dear.share == 0 and n_measured == STEPS + 1 and dear.row()["own fall"] == 0
    step, _ = search(lambda share: 0.1 * (share > 0.7), 0.0)
    assert 0.5 < step.share <= 0.7, "between shares of no cost and of too much it is halved"


def test_the_verdict_says_which_control_costs_less_than_it_might() -> None:
    controls = {"probe": (0.7, 0.002, 0.3), "neuron": (0.2, 0.0004, 2.0)}
    figures = {"concepts": 10.0, COST: 0.002, "selective: latent": 0.8, "own fall: latent": 0.1}
    figures["selective: latent by effect"] = 0.9
    for name, (selective, cost, share) in controls.items():
        figures |= {f"selective: {name}": selective, f"own fall: {name}": 0.05}
        figures |= {f"{COST}: {name}": cost, f"share removed: {name}": share}
    said = ablate.say(figures, tuple(controls))
    listed = "probe 70%, 0.050, neuron 20%, 0.050 (costs them only 0.040%, with 2 of it removed)"
    assert f"no more accuracy (0.200%): {listed}." in said
    assert said.endswith("No less selective, as far as can be told: probe.")
    told = ablate.say(figures | {"concepts": 1000.0}, tuple(controls))
    assert told.endswith("No control is as selective."), "of so many concepts it is a difference"


def test_lesions_of_planted_concepts_take_one_latent() -> None:
    found = bench()
    panel = open_panel(found, 4, 0)
    lesions = lesion.lesions(panel, Candidates(found, "thing"), [1, 2, 6])
    assert lesions.needed("best latents").tolist() == [1] * N_CLASSES
    assert lesions.left["best latents"][0].tolist() == pytest.approx([probability(0, OTHER)] * N_CLASSES, abs=1e-6)
    assert lesions.needed("random firing latents").max() <= 2, "only two latents fire on a class"
    assert (lesions.needed("random latents") >= 1).all()


def test_lesions_of_neurons_set_the_best_ones_to_zero() -> None:
    found = bench()
    panel, candidates = open_panel(found, 4, 0), Candidates(found, "thing")
    left = lesion.lesions(panel, candidates, [1, 2, 6]).left["best neurons"]
    subject: Any = found.subject
    for concept in range(N_CLASSES):
        either = (found.neurons.auc[0][:, concept] - 0.5).abs()
        x = subject.run(found.inputs.batch(concept, concept + 1), [PLACE])[PLACE].clone()
        for number, count in enumerate((1, 2, 6)):
            x[..., candidates.neurons(f"class {concept}", N_CLASSES)[:count]] = 0
            answers = subject._out(x).logits(torch.eye(N_CLASSES)).softmax(-1)
            assert left[number, concept] == pytest.approx(float(answers[0, concept]), abs=1e-6)
        assert torch.equal(
            either[candidates.neurons(f"class {concept}", N_CLASSES)], either.sort(descending=True).values
        )
    assert left[2].tolist() == pytest.approx([1 / N_CLASSES] * N_CLASSES), "of all neurons nothing is left"


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_coarsened_values_lie_on_the_levels_and_are_near(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    for values in (torch.randn(50, 7, generator=generator), torch.rand(50, 7, generator=generator)):
        signed = bool((values < 0).any())
        levels = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        coarse, largest = lesion.coarsened(values, bits, 0), values.abs().amax(0)
        steps = coarse / (largest / levels)
        assert torch.allclose(steps, steps.round(), atol=1e-4)
        assert ((coarse - values).abs() <= largest / levels / 2 + 1e-6).all()
        assert torch.allclose(coarse.abs().amax(0), largest)
    assert lesion.coarsened(torch.randn(3, 3), 1, 0).eq(0).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_coarse_answers_are_those_of_codes_and_decoders_coarsened_as_matrices(bits: int) -> None:
    found = bench()
    panel, generator = open_panel(found, 4, 0), torch.Generator().manual_seed(bits)
    found.dictionary.W_dec.data += 0.1 * torch.randn(N_CLASSES, N_CLASSES, generator=generator)
    panel.rows.add_(torch.randn(panel.rows.shape, generator=generator))
    dense, decoder = panel_codes(panel, found.dictionary).dense(), found.dictionary.W_dec
    for what, delta in (
        ("codes", (lesion.coarsened(dense, bits, 0) - dense) @ decoder),
        ("decoder", dense @ (lesion.coarsened(decoder, bits, 1) - decoder)),
    ):
        assert delta.abs().max() > 0.1
        assert torch.allclose(lesion.coarse(panel, found.dictionary, what, bits), panel.moved(delta), atol=1e-5), what


@pytest.mark.parametrize(
    ("best", "firing", "told"),
    [
        ([False, True], [False, False], "the best ones lose more of them sooner"),
        ([True, True], [False, True], "the best ones lose more of them sooner"),
        ([False, False], [False, True], "the best ones lose fewer of them sooner"),
        ([False, True], [False, True], "makes no difference that can be told"),
    ],
)
def test_the_verdict_compares_how_many_it_takes_concept_by_concept(
    best: list[bool], firing: list[bool], told: str
) -> None:
    n, panel = 40, open_panel(bench(), 4, 0)
    half = torch.arange(n) % 2 == 0

    def lost(at: list[bool]) -> torch.Tensor:
        return torch.tensor(at)[:, None] & half

    orders = {"best latents": lost(best), "random latents": lost([False, False]), "random firing latents": lost(firing)}
    orders = {order: orders.get(order, lost([False, False])) for order in lesion.ORDERS}
    scores = {order: torch.ones(2, n, dtype=torch.float64) for order in orders}
    found = lesion.Lesions((1, 8), torch.ones(n, dtype=torch.float64), scores, orders)
    fine = {what: torch.ones(1, n, dtype=torch.float64) for what in lesion.COARSENED}
    panel = replace(panel, names=tuple(map(str, range(n))), member=torch.eye(len(panel.member), n).bool())
    said = lesion.finding(panel, found, fine, (8,), {}).verdict
    assert told in said and "more than 8 of their best" in said if best == [False, False] else told in said


def test_fine_levels_keep_answers_and_none_lose_them() -> None:
    found = bench()
    panel = open_panel(found, 4, 0)
    for what in lesion.COARSENED:
        fine = lesion.coarse(panel, found.dictionary, what, 8)
        assert torch.allclose(fine, panel.clean, atol=0.02), what
    gone = lesion.coarse(panel, found.dictionary, "decoder", 1)
    assert gone[:, 1].mean() < 0.5, "one bit of both signs leaves nothing of the decoder"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    image_catalog(folder)
    return folder


@pytest.mark.parametrize("method", ["ablate", "lesion"])
def test_the_commands_save_what_they_found(method: str, images: Path, tmp_path: Path) -> None:
    settings = ["--dictionary", str(images / "dictionary"), "--store", str(images / "store"), "--out", str(tmp_path)]
    assert cli.main(["lab", method, *settings, "--per-concept", "3"]) == 0
    found = json.loads((tmp_path / f"{method}.json").read_text())
    assert found["figures"]["concepts"] == 2 and found["verdict"] and found["rows"]
    assert all((tmp_path / f"lab-{method}.{kind}").stat().st_size for kind in ("png", "pdf", "csv"))
    if method == "ablate":
        tried = {(row["method"], row["at"]) for row in found["rows"]}
        assert tried == {(name, "a given share") for name in METHODS} | {(name, "the latent's cost") for name in RIVALS}


def test_mistakes(tmp_path: Path) -> None:
    common = {"dictionary": "d", "store": tmp_path}
    with pytest.raises(ConfigError, match="contain 1"):
        ablate.Config(**common, shares=(0.5, 2.0))
    with pytest.raises(ConfigError, match="counts: must be whole numbers that rise"):
        lesion.Config(**common, counts=(2, 1))
