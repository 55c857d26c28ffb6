"""Tuning curves of units whose curves were planted, and maps of places."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_joint import bench

from sae.activations.store import Provenance
from sae.errors import ConfigError, EvaluationError
from sae.evaluation.sample import Sample
from sae.inputs.concepts import ConceptInputs, World
from sae.lab.readings import latents
from sae.lab.tuning import tuning as method
from sae.lab.tuning.curves import Curves, fitted, scrambled, shapes
from sae.lab.tuning.regions import Regions, known_places, moran, neighbours
from sae.lab.tuning.sweeps import SWEPT, labelled, numeric, shown
from sae.lab.tuning.tuned import CLASS_DEALS, Tuned
from sae.lab.tuning.tuning import Config
from sae.lab.workbench import Workbench

LEVELS, THINGS = 24, 40


def planted() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit 0 steps, unit 1 is a broad bump, unit 2 knows nothing of the level; things differ by a lot."""
    generator = torch.Generator().manual_seed(0)
    level, thing = torch.arange(LEVELS).repeat(THINGS), torch.arange(THINGS).repeat_interleave(LEVELS)
    inside = ((level - 20) % LEVELS < 9).double()
    bump = torch.exp((torch.cos(2 * torch.pi * (level - 5).double() / LEVELS) - 1) / 0.8)
    values = torch.stack([inside, bump, torch.zeros_like(bump)], 1)
    values = values + 0.3 * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    return (
        values + 10 * torch.randn(THINGS, 3, generator=generator, dtype=torch.float64)[thing],
        level,
        thing,
        thing < 20,
    )


def test_the_variance_explained_is_that_of_the_planted_curves() -> None:
    values, level, thing, match = planted()
    found = Curves.of(values, level, thing, match)
    inside = ((level - 20) % LEVELS < 9).double()
    expected = float(inside.var()) / (float(inside.var()) + 0.09)
    assert float(found.explained[0]) == pytest.approx(expected, abs=0.03)
    assert float(found.explained[2]) < 0.01 and float(found.of_all[0]) < 0.02
    assert Curves.of(values, scrambled(level, thing, 0), thing, match).explained.max() < 0.01
    assert int(found.preferred[1]) in (4, 5, 6)
    assert float(found.width[0]) == pytest.approx(9 / LEVELS, abs=1e-9)


def test_a_step_is_told_from_a_bump() -> None:
    values, level, thing, match = planted()
    step = Curves.of(values, level, thing, match).step_likeness(circular=True)
    assert float(step[0]) > 0.5 and float(step[1]) < -0.5


def test_a_slope_is_no_step_on_a_line() -> None:
    _, level, thing, match = planted()
    line = torch.stack([level.double() / LEVELS, (level > 10).double()], 1)
    noise = torch.randn(line.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = Curves.of(line + 0.2 * noise, level, thing, match).step_likeness(circular=False)
    assert float(step[0]) < -0.5 and float(step[1]) > 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 30), st.booleans(), st.sampled_from(["step", "bump"]), st.integers(0, 1000))
def test_shapes_are_fitted_exactly(n_levels: int, circular: bool, kind: str, number: int) -> None:
    made = shapes(n_levels, circular, kind)
    curve = (3 - 2 * made[number % len(made)])[None]
    torch.testing.assert_close(fitted(curve, made), curve)


def test_dealt_levels_stay_within_their_thing() -> None:
    _, level, thing, _ = planted()
    dealt = scrambled(level, thing, 0)
    assert (dealt != level).any()
    for one in range(3):
        assert sorted(dealt[thing == one].tolist()) == list(range(LEVELS))


def test_numbers_become_levels_with_as_many_items() -> None:
    sample = bench().sample
    number = np.where(np.arange(sample.n_items) % 5 == 0, np.nan, np.arange(sample.n_items) % 97)
    sweep = labelled(replace(sample, factors=dict(sample.factors) | {"age": number}), "age", 8)
    assert (sweep.level == -1).sum() == sample.n_items // 5
    counts = sweep.level[sweep.level >= 0].bincount()
    assert len(counts) == 8 and counts.max() - counts.min() <= 8 and list(sweep.values) == sorted(sweep.values)
    with pytest.raises(ConfigError, match="no numbers 'ages'"):
        labelled(replace(sample, factors={"age": number}), "ages", 8)


def test_scenes_differ_in_the_factor_alone_and_show_it() -> None:
    world = World()
    for factor, span in SWEPT.items():
        (scene,) = shown(world, factor, 1)
        low, high = (replace(scene, **{factor: value}) for value in (span.levels(5)[0], span.levels(5)[2]))
        assert not np.array_equal(world.render(low).image, world.render(high).image), factor
        assert not (scene.text or scene.companion or scene.badge)
    assert SWEPT["hue"].levels(4) == [0, 0.25, 0.5, 0.75] and SWEPT["x"].levels(3)[-1] == 0.3


def test_morans_index_is_high_where_neighbours_answer_alike() -> None:
    place = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
    weights = neighbours(place)
    values = torch.stack([place[:, 0] - 1.5, (place.sum(1) % 2) * 2 - 1])
    values = values / values.square().mean(1, keepdim=True).sqrt()
    naive = sum(
        float(weights[i, j]) * values[:, i] * values[:, j] for i in range(16) for j in range(16)
    ) / float(weights.sum())  # fmt: skip
    found = moran(values, weights)
    torch.testing.assert_close(found, naive)
    assert float(found[0]) > 0.4 and float(found[1]) < -0.2
    regions = Regions("toy", tuple("abcdefghijklmnop"), place, values, values)
    own, p = regions.clustering(199, 0)
    assert float(p[0]) == pytest.approx(1 / 200) and float(p[1]) > 0.9 and torch.equal(own, found)


def with_numbers(map_of_classes: bool) -> Workbench:
    """Return the toy's workbench with a number that is 1 where a cat is seen, else 2, and places for its classes."""
    made = bench()
    sample = made.sample
    number = sample.labels["concept"]
    factors = dict(sample.factors) | {"age": np.where((number == 0) | (number == 6), 1.0, 2.0)}
    factors["age"][:2] = 2  # a cat and a dog: the number is not the same in all of a class
    if map_of_classes:
        factors |= {"map_x": (number % 4).astype(float), "map_y": (number // 4).astype(float)}
    made.__dict__["sample"] = replace(sample, factors=factors)
    return made


N_CLASSES, N_EACH = 32, 6


def with_places(seed: int = 0) -> tuple[Sample, np.ndarray, torch.Tensor]:
    """Return items of classes that have places in random order, and units: by place, by class alone, by a category."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(N_CLASSES).repeat_interleave(N_EACH)
    place = torch.randperm(N_CLASSES, generator=generator).double()
    apart = torch.randn(N_CLASSES, generator=generator, dtype=torch.float64)
    values = torch.stack([place / N_CLASSES, apart, (place > 20).double()], 1)[classes]
    values = values + 0.02 * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    n = len(classes)
    number = np.append(place.numpy(), np.nan)[np.where(classes.numpy() == 3, N_CLASSES, classes.numpy())]
    return (
        Sample(
            x=torch.zeros(n, 1), rows=Provenance(torch.arange(n), torch.zeros(n).int(), torch.full((n,), 4).byte()),
            pooled=True, labels={}, factors={"map_x": number}, label_names={}, match=torch.arange(n) % 2 == 0,
        ),
        classes.numpy(),
        values,
    )  # fmt: skip


def test_where_a_class_lies_is_told_from_which_class_it_is() -> None:
    sample, classes, values = with_places()
    by_class = Tuned.of(values, labelled(sample, "map_x", 24, classes), 4, 0)
    assert by_class.curves.explained[0] > 0.9 and by_class.curves.explained[2] > 0.6  # its border is within a level
    assert by_class.curves.explained[1] < 0.3
    beyond = (by_class.chance >= by_class.curves.explained).double().mean(0) < 0.05
    assert beyond.tolist() == [True, False, True] and len(by_class.chance) == CLASS_DEALS
    assert by_class.figures("units", 0)["units, beyond 95 % of its deals"] == pytest.approx(2 / 3)
    dealt_over_items = Tuned.of(values, labelled(sample, "map_x", 24), 4, 0)
    assert dealt_over_items.tuned.all(), "any order of the classes explains the unit that tells them apart"


def test_classes_have_a_level_and_a_half_and_keep_the_half_when_dealt() -> None:
    sample, classes, values = with_places()
    sweep = labelled(sample, "map_x", 24, classes)
    assert sweep.n_classes == N_CLASSES - 1 and len(sweep.values) == (N_CLASSES - 1) // 2
    assert ((sweep.level == -1) == torch.from_numpy(classes == 3)).all()
    means, level, thing, match = sweep.placed(values)
    torch.testing.assert_close(means[5], values[classes == 6].mean(0))
    for number in range(len(sweep.values)):
        assert set(match[level == number].tolist()) == {True, False}
    dealt = scrambled(level, thing, 1)
    assert (dealt != level).any()
    for half in (match, ~match):
        assert sorted(dealt[half].tolist()) == sorted(level[half].tolist())
    few = np.where(classes < 7, classes, -1)
    with pytest.raises(EvaluationError, match="'map_x' is the same in all of a class and 6 classes have one"):
        labelled(sample, "map_x", 24, few)
    varied = sample.factors["map_x"].copy()
    varied[0] += 1
    assert labelled(replace(sample, factors={"map_x": varied}), "map_x", 24, classes).n_classes == 0


def test_the_concept_world_is_tuned_over_its_map_too() -> None:
    made = with_numbers(True)
    object.__setattr__(made, "inputs", ConceptInputs(World(), "score", 4))
    assert method._factors(made, Config(dictionary="toy", store=Path())) == (*SWEPT, "map_x", "map_y")


def test_classes_that_are_called_numbers_are_numbers() -> None:
    sample = bench().sample
    values = np.where(np.arange(sample.n_items) == 7, -1, np.arange(sample.n_items) % 2)
    changed = replace(
        sample,
        factors=dict(sample.factors) | {"angle": values},
        label_names=dict(sample.label_names) | {"angle": ("-10", "2.5")},
    )
    found = numeric(changed)
    assert set(found) == {"angle"} and np.isnan(found["angle"][7])
    assert found["angle"][:3].tolist() == [-10, 2.5, -10]
    assert labelled(changed, "angle", 8).values == (-10, 2.5)


def test_places_come_from_labels_or_a_file(tmp_path: Path) -> None:
    assert known_places(bench(), ("map_x", "map_y"), None) == {}
    assert known_places(with_numbers(True), ("map_x", "map_y"), None)["owl"] == (1.0, 1.0)
    path = tmp_path / "places.json"
    path.write_text('{"cat": [1, 2], "dog": [0, 2.5]}')
    assert known_places(bench(), ("map_x", "map_y"), path) == {"cat": (1, 2), "dog": (0, 2.5)}
    with pytest.raises(EvaluationError, match="2 classes of the sample have a place"):
        Regions.of(latents(bench()), bench(), known_places(bench(), ("map_x", "map_y"), path))
    path.write_text('{"catt": [1, 2]}')
    with pytest.raises(EvaluationError, match=r"no class 'catt'.* Did you mean 'cat'"):
        known_places(bench(), ("map_x", "map_y"), path)
    path.write_text('{"cat": 1}')
    with pytest.raises(EvaluationError, match="not a JSON such as"):
        known_places(bench(), ("map_x", "map_y"), path)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_whole_run_on_labels_that_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: bool) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: with_numbers(mapped))
    factors = ("age", "map_x") if mapped else ("age",)
    found = method.run(Config(dictionary="toy", store=tmp_path, factors=factors, n_levels=4))
    assert ("dealt among 8 classes" in found.verdict) == mapped
    assert found.rows[0]["latent"] == 0 and found.rows[0]["explained"] > 0.9 and found.rows[0]["prefers"] == 1
    assert found.figures["age, latents, tuned by chance"] < 0.2
    assert ("lab-regions" in found.pictures) == mapped == ("map, latents, clustered" in found.figures)
    found.save(tmp_path / "out")
    for name in found.pictures:
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5000


def test_places_alone_draw_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench()
    names = made.sample.label_names["concept"]
    (tmp_path / "places.json").write_text(json.dumps({name: [n % 4, n // 4] for n, name in enumerate(names)}))
    monkeypatch.setattr(Workbench, "open", lambda config: made)
    found = method.run(Config(dictionary="toy", store=tmp_path, places=tmp_path / "places.json"))
    assert set(found.pictures) == {"lab-regions"} and not found.rows
    assert found.figures["map, latents, tell regions apart"] > 0 and "answer neighbours on the map" in found.verdict
    found.save(tmp_path / "out")


def test_inputs_without_numbers_and_settings_without_sense_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    with pytest.raises(EvaluationError, match="no numbers as labels"):
        method.run(Config(dictionary="toy", store=tmp_path))
    with pytest.raises(ConfigError, match="n_levels"):
        Config(dictionary="toy", store=tmp_path, n_levels=2)
