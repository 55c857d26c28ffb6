"""Labelling blind on the planted units of the levels: what is drawn, what raters see, and what their labels give."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_levels import ANIMALS, N, bench, sample

from sae.errors import CatalogError, ConfigError, EvaluationError
from sae.features.judging.labelling import FILE, Labelling
from sae.lab.levels import label
from sae.lab.levels.labelled import Labelled, votes
from sae.lab.workbench import Workbench
from sae.tensors import Batch

SECRET = ("level", "value", "item", "activation", "unit", "example", "latent", "seed")


class Pictures:
    """Pictures that show the number of the example in their first two pixels."""

    def batch(self, start: int, stop: int) -> Batch:
        images = torch.zeros(stop - start, 3, 2, 2, dtype=torch.uint8)
        images[:, 0, 0, 0], images[:, 1, 0, 0] = torch.arange(start, stop) // 256, torch.arange(start, stop) % 256
        return Batch(first_example=start, images=images)


def opened() -> Workbench:
    made = bench()
    made.dictionary.provenance = {"hookpoint": "visual.toy"}
    object.__setattr__(made, "inputs", Pictures())
    made.__dict__["any_sample"] = made.sample
    return made


@pytest.fixture(autouse=True)
def workbench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: opened())


def config(folder: Path, **given: Any) -> label.Config:
    wanted: dict[str, Any] = {"unit": "latent:0", "categories": ("dog", "cat", "other"), "out": folder / "found"}
    return label.Config(dictionary="toy", store=Path("toy"), **(wanted | given))


def answer(folder: Path, rater: str, slips: float = 0.0) -> None:
    """Name every item by its animal, with slips."""
    made, rng = Labelling(folder / "found"), np.random.default_rng(len(rater))
    for slot, item in enumerate(made.key["item"]):
        truth = {"dog": 0, "cat": 1}.get(ANIMALS[sample().labels["animal"][item]], 2)
        made.label(rater, slot, int(rng.integers(3)) if rng.random() < slips else truth)


def test_equal_numbers_are_drawn_from_levels_and_a_tenth_comes_twice(tmp_path: Path) -> None:
    found = label.run(config(tmp_path))
    made = Labelling(tmp_path / "found")
    item, level = np.array(made.key["item"]), np.array(made.key["level"])
    once = dict(zip(item.tolist(), level.tolist(), strict=True))
    x = sample().x[:, 0].numpy() + 0.5
    edges = np.linspace(x.min(), x.max(), 11)
    sizes = np.histogram(x, edges)[0]
    assert np.bincount(list(once.values()), minlength=10).tolist() == np.minimum(sizes, 15).tolist()
    assert all(edges[of] - 1e-6 <= x[one] <= edges[of + 1] + 1e-6 for one, of in once.items())
    assert len(item) - len(once) == np.ceil(len(once) / 10) and edges[0] < 0
    assert abs(np.corrcoef(np.arange(len(level)), level)[0, 1]) < 0.25, "the order says nothing of the level"
    assert found.figures["items"] == len(once) and "nobody has labelled any" in found.verdict and not found.rows


def test_raters_see_pictures_and_nothing_else(tmp_path: Path) -> None:
    label.run(config(tmp_path))
    folder = tmp_path / "found"
    made, public = Labelling(folder), (folder / FILE).read_text()
    assert json.loads(public)["slots"] == [{}] * len(made.slots) and not any(word in public for word in SECRET)
    files = sorted(path.name for path in (folder / "items").iterdir())
    assert files == [f"{slot:06d}.png" for slot in range(len(made.slots))]
    item = made.key["item"]
    from PIL import Image

    for slot in (0, len(item) - 1):
        red, green, _ = Image.open(folder / "items" / files[slot]).getpixel((0, 0))  # type: ignore[misc]
        assert red * 256 + green == item[slot]


def test_labels_give_what_exact_ones_do(tmp_path: Path) -> None:
    label.run(config(tmp_path))
    answer(tmp_path, "Ada")
    found = label.run(config(tmp_path))
    assert found.rows[-1]["precision"] == 1 and found.rows[-1]["commonest"] == "dog"
    assert found.rows[0]["commonest"] == "other" and sum(row["items"] for row in found.rows) == N
    truth, x = sample().labels["animal"] == ANIMALS.index("dog"), sample().x[:, 0].numpy() + 0.5
    strong = x >= np.linspace(x.min(), x.max(), 11)[7]
    assert found.figures["all items, P(dog), 95 % from"] <= truth.mean() <= found.figures["all items, P(dog), 95 % to"]
    low, high = (found.figures[f"from half the maximum, P(dog), 95 % {end}"] for end in ("from", "to"))
    assert low <= truth[strong].mean() <= high and high - low < 0.5
    # In six dimensions, one of them loud, most directions tell dogs: the comparison says so.
    assert found.figures["latent:0, AUC"] > 0.99 and ", not above that of 95 % of the random" in found.verdict
    assert found.figures["random directions (95 %), AUC"] > 0.98
    assert found.figures["repeats, kappa"] == 1 and found.figures["repeats, kappa low"] < 0.9
    found.save(tmp_path / "found")
    assert (tmp_path / "found" / "lab-labelled.png").stat().st_size > 5000


def test_labels_at_random_are_not_told_from_other_units(tmp_path: Path) -> None:
    label.run(config(tmp_path))
    answer(tmp_path, "Ada", slips=1.0)
    found = label.run(config(tmp_path))
    assert "not distinguishable" in found.verdict and found.figures["repeats, kappa"] < 0.7
    assert "not above" in found.verdict


def test_the_verdict_compares_with_the_strongest_of_the_others(tmp_path: Path) -> None:
    label.run(config(tmp_path))
    answer(tmp_path, "Ada")
    found = Labelled.of(Labelling(tmp_path / "found"), sample().x[:, 0].double().numpy() + 0.5)
    rivals = {"random directions": np.full(20, 0.6), "neurons": np.full(6, 0.7)}
    told = label.say(config(tmp_path), found, 0.75, rivals)
    assert "AUC 0.75, above that of 95 % of the neurons on the same items." in told and "distinguishable" not in told
    assert "not above that of 95 % of the neurons" in label.say(config(tmp_path), found, 0.65, rivals)
    assert "AUC 0.20, above" in label.say(config(tmp_path), found, 0.2, rivals), "either sign tells"


def test_a_rater_who_calls_everything_alike_tells_nothing(tmp_path: Path) -> None:
    label.run(config(tmp_path))
    made = Labelling(tmp_path / "found")
    for slot in range(len(made.slots)):
        made.label("Ada", slot, 1)
    found = label.run(config(tmp_path))
    assert "nothing to compare" in found.verdict and "latent:0, AUC" not in found.figures
    assert not any("kappa" in name for name in found.figures)
    found.save(tmp_path / "found")


def test_two_raters_are_joined_and_their_agreement_told(tmp_path: Path) -> None:
    label.run(config(tmp_path))
    answer(tmp_path, "Ada")
    answer(tmp_path, "Bobby", slips=0.3)
    found = label.run(config(tmp_path))
    assert found.figures["raters"] == 2 and 0.5 < found.figures["raters, kappa"] < 0.95
    assert found.figures["raters, kappa low"] < found.figures["raters, kappa"] < found.figures["raters, kappa high"]


def test_most_votes_win_and_ties_are_drawn() -> None:
    item = [7, 8, 9, 7]
    said = {"a": {0: 0, 1: 1, 3: 2}, "b": {0: 0, 2: 1}, "c": {3: 2, 1: 2}}
    assert {one: of for one, of in votes(item, said).items() if one != 8} == {7: 0, 9: 1}
    assert {votes(item, said, seed)[8] for seed in range(20)} == {1, 2}
    assert votes(item, {"a": {}}) == {}


def test_the_area_counts_items_by_their_weight(tmp_path: Path) -> None:
    label.run(config(tmp_path))
    answer(tmp_path, "Ada")
    values = sample().x[:, 0].double().numpy() + 0.5
    found = Labelled.of(Labelling(tmp_path / "found"), values)
    x, has, weight = found.values, found.category == 0, found.weight
    assert weight.sum() == pytest.approx(found.levels.mass[found.levels.counts.sum(1) > 0].sum())
    pairs = [
        (weight[i] * weight[j], (x[i] > x[j]) + (x[i] == x[j]) / 2)
        for i in np.flatnonzero(has)
        for j in np.flatnonzero(~has)
    ]
    expected = sum(w * won for w, won in pairs) / sum(w for w, _ in pairs)
    assert found.auc(np.stack([x, -x], 1)) == pytest.approx([expected, 1 - expected])


def test_text_is_shown_around_the_token_in_question() -> None:
    tokens = torch.arange(60)[None]
    kind = torch.full((1, 60), 1, dtype=torch.uint8)
    from sae.tensors import Kind

    kind[:] = int(Kind.TOKEN)
    kind[0, 0] = int(Kind.BOS)
    batch = Batch(first_example=0, tokens=tokens, kind=kind)
    assert label.excerpt(batch, 3, str) == {"tokens": [str(one) for one in range(1, 20)], "at": 2}
    assert label.excerpt(batch, 59, str) == {"tokens": [str(one) for one in range(43, 60)], "at": 16}
    assert label.excerpt(batch, None, str) == {"tokens": [str(one) for one in range(1, 60)], "at": None}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"categories": ("cat",)}, ConfigError, "2 to 9 different names, got cat"),
        ({"categories": ("cat", "cat")}, ConfigError, "different names"),
        ({"categories": tuple("abcdefghij")}, ConfigError, "2 to 9"),
        ({"categories": ("cat", " ")}, ConfigError, "1 to 40 letters"),
        ({"n_each": 0}, ConfigError, "n_each at least 1"),
        ({"out": None}, ConfigError, "--out"),
        ({"unit": "latent:6"}, EvaluationError, "latent:6: out of range"),
        ({"unit": "laten:1"}, ConfigError, "Did you mean 'latent'"),
    ],
)
def test_what_cannot_be_labelled_is_told(
    tmp_path: Path, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        label.run(config(tmp_path, **given))


def test_other_settings_do_not_mix_with_a_labelling_that_is_there(tmp_path: Path) -> None:
    label.run(config(tmp_path))
    with pytest.raises(ConfigError, match=r"unit: .* was prepared with 'latent:0', not 'latent:1'"):
        label.run(config(tmp_path, unit="latent:1"))
    path = tmp_path / "found" / "key.json"
    key = json.loads(path.read_text())
    path.write_text(json.dumps(key | {"of": key["of"] | {"dictionary": "cd" * 32}}))
    with pytest.raises(ConfigError, match=r"dictionary's sha256: .* was prepared with 'cdcd"):
        label.run(config(tmp_path))
    path.write_text("{")
    with pytest.raises(CatalogError, match=r"key\.json: cannot be read"):
        label.run(config(tmp_path))


def test_items_of_a_direction_are_of_the_half_that_it_was_not_fitted_on(tmp_path: Path) -> None:
    given = {"unit": "direction:animal=dog"}
    label.run(config(tmp_path, **given))
    item = np.array(Labelling(tmp_path / "found").key["item"])
    match = opened().sample.match.numpy()
    assert not match[item].any() and match.any()
    answer(tmp_path, "Ada")
    found = label.run(config(tmp_path, **given))
    assert sum(row["items"] for row in found.rows) == int((~match).sum())
    key = json.loads((tmp_path / "found" / "key.json").read_text())
    key["item"][0] = int(match.nonzero()[0][0])
    (tmp_path / "found" / "key.json").write_text(json.dumps(key))
    with pytest.raises(ConfigError, match="has items that direction:animal=dog was fitted on"):
        label.run(config(tmp_path, **given))
