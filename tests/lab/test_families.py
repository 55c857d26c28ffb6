"""Families of planted latents, and the relation of frequency with having a unit of one's own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_joint import NAMES, bench, with_few

from sae.errors import ConfigError, EvaluationError
from sae.inputs.concepts import ConceptInputs, World
from sae.lab.associations import families as method
from sae.lab.associations.families import Config, known_frequencies, known_groups
from sae.lab.associations.frequency import OTHER_SEED, Owned, Related, logistic, within
from sae.lab.associations.grouping import Grouped, by_label, by_text
from sae.lab.workbench import Workbench

GROUPS = {"animal": ["cat", "dog", "owl"], "look": ["red", "big"]}


def test_a_unit_has_the_group_of_the_class_that_it_separates_on_both_halves() -> None:
    match = torch.tensor([[0.99, 0.5, 0.5], [0.5, 0.6, 0.99], [0.5, 0.99, 0.5], [0.5, 0.5, 0.5]])
    score = torch.tensor([[0.95, 0.5, 0.5], [0.5, 0.99, 0.7], [0.5, 0.95, 0.5], [0.5, 0.5, 0.5]])
    assert by_label(match, score, torch.tensor([4, 2, 1])).tolist() == [4, -1, 2, -1]


def test_a_unit_has_a_group_by_text_if_all_of_its_nearest_words_are_of_it() -> None:
    words = torch.eye(4)
    places = torch.tensor([[1.0, 0.9, 0, 0], [1.0, 0, 0.9, 0], [0, 0, 0, 0], [0, 0, 0.1, 5]])
    assert by_text(places, words, torch.tensor([0, 0, 1, 1]), 2).tolist() == [0, -1, -1, 1]
    assert by_text(places, words, torch.tensor([0, 0, 1, 1]), 1).tolist() == [0, 0, -1, 1]


def test_agreement_counts_units_with_both_and_knows_its_chance() -> None:
    grouped = Grouped(torch.tensor([0, 0, 1, 1, -1, 2]), torch.tensor([0, 1, 1, 1, 2, -1]))
    agreement, chance = grouped.agreement(0)
    assert agreement.mean == 0.75 and chance == pytest.approx(0.5 * 0.25 + 0.5 * 0.75)
    assert grouped.counts(3) == ([2, 2, 1], [1, 3, 1], [1, 2, 0])


def test_a_class_owns_a_unit_that_detects_nothing_else_better() -> None:
    match = torch.tensor([[0.99, 0.98, 0.2], [0.5, 0.6, 0.7], [0.5, 0.5, 0.5]], dtype=torch.float64)
    score = torch.tensor([[0.95, 0.97, 0.2], [0.5, 0.6, 0.8], [0.5, 0.5, 0.5]], dtype=torch.float64)
    found = Owned.of(match, score)
    assert found.unit.tolist() == [0, 0, 1] and found.own.tolist() == [True, False, False]
    assert found.n_units.tolist() == [1, 0, 1]


def test_the_regression_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=300) - 3
    y = rng.random(300) < 1 / (1 + np.exp(-(2 + 0.8 * x)))
    found = logistic(torch.from_numpy(x), torch.from_numpy(y), torch.ones(1, 300, dtype=torch.float64))[0]
    expected = LogisticRegression(C=1e6, tol=1e-10).fit(x[:, None], y)
    assert float(found[1]) == pytest.approx(float(expected.coef_[0, 0]), abs=0.01)
    assert float(found[0]) == pytest.approx(float(expected.intercept_[0]), abs=0.03)
    separable = logistic(torch.from_numpy(x), torch.from_numpy(x > -3), torch.ones(1, 300, dtype=torch.float64))
    assert separable.isfinite().all() and float(separable[0, 1]) > 3


def test_a_planted_relation_is_found_and_a_dealt_one_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    frequency = 10 ** (-3 * torch.rand(200, generator=generator, dtype=torch.float64))
    area = 0.95 + 0.05 * frequency.log10() + 0.03 * torch.randn(200, generator=generator, dtype=torch.float64)
    owned = Owned(torch.zeros(200, dtype=torch.int64), area, area > 0.9, (1000 * area).long())
    group = torch.arange(200) % 5
    found = Related.of(owned, frequency, group, 0)
    assert found.slope.spread.low > 0 and found.ranks.value > 0.7 and found.within.value > 0.7
    assert found.number.spread.low > 0
    dealt = Related.of(owned, frequency[torch.randperm(200, generator=generator)], group, 0)
    assert not dealt.slope.spread.apart_from(0) and not dealt.ranks.spread.apart_from(0)
    above = found.above(dealt)
    assert {what: of.said for what, of in above.items()} == dict.fromkeys(above, "more than")


def test_ranks_within_groups_ignore_what_sets_groups_apart() -> None:
    values, group = torch.tensor([1.0, 2.0, 101.0, 102.0]), torch.tensor([0, 0, 1, 1])
    assert within(values, group).tolist() == [0.25, 0.75, 0.25, 0.75]


def test_a_whole_run_with_groups_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    (tmp_path / "groups.json").write_text(json.dumps(GROUPS))
    found = method.run(Config(dictionary="toy", store=tmp_path, groups=tmp_path / "groups.json", n_words=1))
    assert found.figures["latents, animal by both"] >= 2 / 12
    assert found.figures["latents, agreement"] == 1
    by_class = {row["class"]: row for row in found.rows}
    assert by_class["owl"]["latent's group by text"] == "animal" and by_class["sun"]["latent's group by label"] == ""
    assert "log odds" not in found.verdict
    assert "with a group by label: " in found.verdict.lower() and "not distinguishable from neurons" in found.verdict
    found.save(tmp_path / "out")
    assert (tmp_path / "out" / "lab-families.png").stat().st_size > 5000


def test_classes_with_too_few_examples_have_no_unit_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "groups.json").write_text(json.dumps(GROUPS))
    config = Config(dictionary="toy", store=tmp_path, groups=tmp_path / "groups.json", n_words=1)
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    whole = method.run(config).figures["latents, classes with a unit of their own"]
    monkeypatch.setattr(Workbench, "open", lambda config: with_few(bench(), "owl"))
    found = method.run(config)
    assert found.figures["latents, classes with a unit of their own"] == whole - 1 / len(NAMES)
    assert "1 of the concepts had too few examples" in found.verdict


def test_the_verdict_tells_what_goes_with_frequency_beside_the_controls() -> None:
    generator = torch.Generator().manual_seed(0)
    frequency = 10 ** (-3 * torch.rand(200, generator=generator, dtype=torch.float64))
    area = 0.95 + 0.05 * frequency.log10() + 0.03 * torch.randn(200, generator=generator, dtype=torch.float64)
    owned = Owned(torch.zeros(200, dtype=torch.int64), area, area > 0.9, (1000 * area).long())
    group, dealt = torch.arange(200) % 5, frequency[torch.randperm(200, generator=generator)]
    related = {
        "latents": Related.of(owned, frequency, group, 0),
        "neurons": Related.of(owned, frequency, group, 0),
        OTHER_SEED: Related.of(owned, dealt, group, 0),
    }
    said = method._of_frequency(related)
    assert "more often have a latent of their own" in said
    assert said.count("not distinguishable from neurons") == 2
    assert said.count("more than the other seed's frequencies") == 2


def test_what_nobody_knows_is_refused_or_left_out(tmp_path: Path) -> None:
    made, path = bench(), tmp_path / "given.json"
    with pytest.raises(EvaluationError, match="no labels 'family' to group classes by"):
        known_groups(made, NAMES, None)
    path.write_text(json.dumps({"animal": ["catt"]}))
    with pytest.raises(EvaluationError, match=r"no class 'catt'.* Did you mean 'cat'"):
        known_groups(made, NAMES, path)
    path.write_text("[1]")
    with pytest.raises(EvaluationError, match="not a JSON such as"):
        known_groups(made, NAMES, path)
    assert known_frequencies(made, None) is None
    path.write_text(json.dumps({"cat": 0.5}))
    with pytest.raises(EvaluationError, match="'dog' and 6 other classes have none"):
        known_frequencies(made, path)
    path.write_text(json.dumps(dict.fromkeys(NAMES, 0.1) | {"dog": "often"}))
    with pytest.raises(EvaluationError, match="that of 'dog' must be a number above 0, got 'often'"):
        known_frequencies(made, path)
    with pytest.raises(ConfigError, match="n_words"):
        Config(dictionary="toy", store=tmp_path, n_words=0)


def test_the_two_seeds_of_the_world_have_other_frequencies() -> None:
    one, other = (ConceptInputs(World(seed), "score", 4).frequencies() for seed in (0, 1))
    assert list(one) == list(other)
    assert abs(np.corrcoef(np.log(list(one.values())), np.log(list(other.values())))[0, 1]) < 0.2
