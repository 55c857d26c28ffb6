"""Units whose labels at every level are known, on a workbench made for it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sae.activations.store import Provenance
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import ConfigError, EvaluationError
from sae.evaluation.sample import Sample, halves
from sae.lab.levels import levels, regimes, suppression
from sae.lab.levels.suppression import lowest_items
from sae.lab.levels.table import Levels
from sae.lab.readings import Family, Readings, difference, latents, neurons, random
from sae.lab.workbench import Workbench
from sae.tensors import Kind

N, WIDTH = 4000, 6
ANIMALS = ("cat", "dog", "eel", "fox")


def sample(pooled: bool = False) -> Sample:
    """Coordinate 0 is low for eel, and strong for cat at medium and for dog at large values; the others are noise."""
    rng = np.random.default_rng(0)
    animal = rng.choice(4, N, p=[0.15, 0.05, 0.1, 0.7])
    x = rng.normal(size=(N, WIDTH)) * 0.3
    centres, spread = np.array([6.0, 9.6, -4.0, 0.0]), np.array([0.3, 0.15, 0.3, 1.0])
    x[:, 0] = centres[animal] + spread[animal] * x[:, 0]
    vectors = torch.from_numpy(x).float()
    numbers = torch.arange(N)
    if pooled:
        vectors = torch.stack([vectors, torch.zeros_like(vectors)], 1).flatten(0, 1)
    kind = torch.full((len(vectors),), int(Kind.PATCH), dtype=torch.uint8)
    rows = numbers.repeat_interleave(2) if pooled else numbers
    labels = {"animal": animal, "luck": rng.integers(0, 2, N), "rare": np.where(numbers.numpy() == 5, 0, -1)}
    return Sample(
        x=vectors,
        rows=Provenance(rows, torch.zeros_like(rows), kind),
        pooled=pooled,
        labels=labels,
        factors=labels,
        label_names={"animal": ANIMALS, "luck": ("odd", "even"), "rare": ("one",)},
        match=halves(numbers, 0),
    )


def bench() -> Workbench:
    dictionary = TopK(TopKConfig(d_sae=WIDTH, k=1), WIDTH).requires_grad_(False)
    dictionary.W_enc_rows.copy_(torch.eye(WIDTH))
    dictionary.b_enc.fill_(0.5)
    subject: Any = SimpleNamespace(id="toy", hookpoints=lambda: {"hook_pre": None})
    about = {name: {"sha256": "0" * 64} for name in ("dictionary", "store")}
    made = Workbench(dictionary, subject, SimpleNamespace(), None, about=about)  # type: ignore[arg-type]
    made.__dict__["sample"] = sample()
    return made


def settings(**given: Any) -> dict[str, Any]:
    return {"dictionary": "toy", "store": Path("toy")} | given


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())


def test_pre_activations_keep_their_sign_and_are_pooled_from_either_side() -> None:
    made = bench()
    torch.testing.assert_close(latents(made).of(range(1, 3)), made.sample.x[:, 1:3] + 0.5)
    torch.testing.assert_close(neurons(made).of(range(WIDTH)), made.sample.x)
    pooled = Readings("latent", made.dictionary, sample(pooled=True))
    x = made.sample.x[:, :1]
    torch.testing.assert_close(pooled.of(range(1)), x.clamp(min=0) + 0.5)
    torch.testing.assert_close(pooled.of(range(1), lowest=True), x.clamp(max=0) + 0.5)
    drawn = random(made.sample, 3, seed=1).of(range(3))
    torch.testing.assert_close(drawn.mean(0), torch.zeros(3), atol=1e-4, rtol=0)


def test_the_difference_of_means_points_at_its_label() -> None:
    made = bench()
    direction = difference(made.sample, "animal=dog").dictionary.W_enc_rows[0]
    assert direction[0] > 0.99


def test_a_family_names_what_it_is_silent_about() -> None:
    rare = Family.of(sample(), "rare")
    assert rare.names == ("one", "none") and rare.values[5] == 0 and rare.values.sum() == N - 1
    assert Family.of(sample(), "animal").names == ANIMALS


def test_levels_find_the_planted_mix_on_both_sides(tmp_path: Path) -> None:
    found = levels.run(levels.Config(**settings(unit="latent:0", n_random=8, n_deals=199)))
    assert found.figures["latent:0, AUC"] == pytest.approx(1, abs=0.01)
    by_level = {row["commonest"]: row for row in found.rows if row["drawn"]}
    assert set(by_level) == {"cat", "dog", "eel", "fox"}
    assert found.rows[0]["commonest"] == "eel" and found.rows[-1]["commonest"] == "dog"
    assert by_level["dog"]["precision"] == 1 and by_level["fox"]["precision"] == 0
    assert found.figures["regime, p"] <= 0.01 and found.figures["regime, bits"] > 0.9, "cats before dogs"
    assert "changes" in found.verdict
    found.save(tmp_path)
    assert (tmp_path / "lab-levels.png").stat().st_size > 5000


def test_a_label_can_be_named() -> None:
    found = levels.run(levels.Config(**settings(unit="latent:0", label="animal=cat", n_random=2, n_deals=9)))
    assert "have animal=cat" in found.verdict and max(row["with_label"] for row in found.rows) > 10


def test_a_unit_of_noise_is_not_told_from_random_directions() -> None:
    found = levels.run(levels.Config(**settings(unit="neuron:3", family="luck", n_random=8, n_deals=199)))
    assert "not distinguishable" in found.verdict
    assert found.figures["levels outside the band of dealt labels"] == 0
    assert found.figures["neuron:3, AUC"] == pytest.approx(0.5, abs=0.05)


def test_strong_levels_are_counted_from_half_the_maximum() -> None:
    values, has = np.array([-9.0, 1, 4, 5, 10]), np.array([True, False, True, True, False])
    strong = levels.Strong.of(values, has, 0.5)
    assert (strong.hits, strong.n, strong.precision) == (1, 2, 0.5) and strong.recall == pytest.approx(1 / 3)
    assert "precision" not in "".join(levels.Strong.of(-values - 20, has, 0.5).figures("it"))


def test_an_interval_holds_the_share_and_rows_count_items() -> None:
    made = sample()
    table = Levels.of(made.x[:, 0].double().numpy(), made.labels["animal"], 4, 1, n_levels=12, n_each=30)
    rows = table.rows(ANIMALS)
    assert sum(row["items"] for row in rows) == N and max(row["drawn"] for row in rows) == 30
    for row in rows:
        assert not row["drawn"] or row["low"] <= row["precision"] <= row["high"]
    width = rows[0]["to"] - rows[0]["from"]
    assert sum(row["density"] * width for row in rows) == pytest.approx(1, abs=0.01)


def test_only_the_planted_unit_changes_regime(tmp_path: Path) -> None:
    found = regimes.run(regimes.Config(**settings(family="animal", n_deals=199)))
    beyond = [row["unit"] for row in found.rows if row["beyond_chance"]]
    assert {"latent:0", "neuron:0"} <= set(beyond) and not {f"latent:{i}" for i in range(1, WIDTH)} & set(beyond)
    assert "; latents not distinguishable from neurons (" in found.verdict, "each kind has one such unit"
    assert found.rows[0]["medium"].startswith("cat") and found.rows[0]["strong"].startswith("dog")
    found.save(tmp_path)
    assert (tmp_path / "lab-regimes.png").stat().st_size > 5000
    *panels, counted = found.pictures["lab-regimes"].draw().axes
    tested = [int(found.figures[f"{kind}, tested"]) for kind in ("latent", "neuron", "random_direction")]
    drawn = [sum(len(dots.get_offsets()) for dots in axes.collections) for axes in panels]
    assert drawn == tested, "every unit that could be tested is drawn once"
    assert f"{int(found.figures['latent, change beyond chance'])} of {tested[0]}" in {
        text.get_text() for text in counted.texts
    }


def test_the_planted_label_is_found_on_the_negative_side(tmp_path: Path) -> None:
    found = suppression.run(suppression.Config(**settings(n_rolls=5)))
    first = {row["unit"]: row for row in found.rows}["neuron:0"]
    assert first["label"] == "animal=eel" and first["share"] == 1 and first["auc"] > 0.99 and first["beyond_chance"]
    low = sample().x[:, 0].sort().values[: int(N * 0.1)]
    shown = [int(number) for number in first["examples"].split()]
    assert (sample().x[shown, 0] <= low[-1]).all() and not sample().match[shown].any()
    assert found.figures["latent, suppress a label"] == 1
    assert found.figures["latent, suppress a label, labels moved"] <= 0.5
    found.save(tmp_path)
    assert (tmp_path / "lab-suppression.png").stat().st_size > 5000
    excess, counted = found.pictures["lab-suppression"].draw().axes
    best = max(row["share"] - row["base"] for row in found.pictures["lab-suppression"].rows)
    assert max(line.get_ydata()[0] for line in excess.lines) == pytest.approx(best)
    assert counted.texts[0].get_text() == f"1 of {WIDTH}" and "; latents " in found.verdict


def test_without_negative_values_or_with_ties_there_is_no_negative_side() -> None:
    values = torch.stack([torch.linspace(0, 1, 100), torch.linspace(-1, 1, 100), -torch.ones(100)], 1)
    found = lowest_items(values, 0.05)
    assert found[0].tolist() == found[2].tolist() == [-1] * 5
    assert found[1].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"unit": "latent:6"}, EvaluationError, r"latent:6: out of range; there are 6, 0 to 5"),
        ({"unit": "laten:1"}, ConfigError, r"names no unit.* Did you mean 'latent'"),
        ({"unit": "latent:x"}, ConfigError, r"named by its number"),
        ({"unit": "direction:animal=dgo"}, EvaluationError, r"Did you mean 'animal=dog'"),
        ({"unit": "latent:0", "family": "animals"}, ConfigError, r"Did you mean 'animal'"),
        ({"unit": "latent:0", "family": "rare"}, ConfigError, r"every label of 'rare' is too rare"),
        ({"unit": "latent:0", "label": "animal=dgo"}, ConfigError, r"Did you mean 'animal=dog'"),
        ({"unit": "latent:0", "label": "animal=dog", "family": "luck"}, ConfigError, r"no 'animal=dog' in luck"),
        ({"unit": "neuron:0", "neurons_at": "hook_pr"}, ConfigError, r"Did you mean 'hook_pre'"),
        ({"unit": "latent:0", "n_levels": 1}, ConfigError, r"at least 2"),
    ],
)
def test_what_cannot_be_read_is_told(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        levels.run(levels.Config(**settings(**given)))


def test_inputs_without_labels_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench()
    del made.__dict__["sample"]
    made.inputs.describe = lambda: "plain"  # type: ignore[method-assign]
    monkeypatch.setattr(Workbench, "open", lambda config: made)
    with pytest.raises(EvaluationError, match="plain: these inputs have no labels"):
        regimes.run(regimes.Config(**settings()))
