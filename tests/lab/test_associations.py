"""Association strengths of units whose answers are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_joint import NAMES, bench

from sae.errors import ConfigError, EvaluationError
from sae.inputs.concepts import ConceptInputs, World
from sae.lab.associations import associations as method
from sae.lab.associations.associations import Config, Shown, known_pairs
from sae.lab.associations.strengths import Pairs, Strengths, alone, correlation, percent, shares
from sae.lab.spread import Spread, rank_correlation
from sae.lab.workbench import Workbench

KIN = dict.fromkeys(("cat", "dog", "owl", "cog"), "animal")
RATES = {"cat": {"dog": 0.3, "sun": 0.06}, "red": {"big": 0.3}}


def pairs() -> Pairs:
    return Pairs.of(NAMES, RATES, KIN)


def test_pairs_know_who_never_goes_with_whom_and_who_is_alike() -> None:
    made = pairs()
    assert [(place, NAMES[other], [NAMES[one] for one in kin]) for place, other, kin in made.listed()] == [
        (0, "dog", ["owl", "cog"]),
        (0, "sun", ["red", "big", "hat"]),
        (1, "big", ["sun", "hat"]),
    ]
    back = made.reverse
    assert {NAMES[one] for one in back.owners.tolist()} == {"dog", "sun", "big"}
    assert not back.apart[back.owners.tolist().index(1), 0], "a dog's owner is no stranger to it"


def test_a_class_that_is_too_rare_is_neither_kin_nor_a_stranger() -> None:
    known = torch.tensor([name != "cog" for name in NAMES])
    made = Pairs.of(NAMES, {"cat": {"dog": 0.3, "cog": 0.3}}, KIN).on(known)
    assert [(NAMES[other], [NAMES[one] for one in kin]) for _, other, kin in made.listed()] == [("dog", ["owl"])]
    assert not made.apart[0, NAMES.index("cog")], "it goes with the cat, however rare it is"
    assert not made.reverse.apart[0, NAMES.index("cat")]
    means = torch.tensor([[10.0, 6.0, 3.0, 2.0, 2.0, 2.0, float("nan"), 2.0]], dtype=torch.float64)
    unseen = Pairs.of(NAMES, {"cat": {"dog": 0.3}}, KIN).on(known)
    found = Strengths.of(means, unseen)
    assert found.kin.isfinite().all() and found.rank.tolist() == [1]
    assert correlation(means, unseen, 99, 0)[0].mean == pytest.approx(1)


def test_rates_are_those_that_can_be_compared_and_each_has_a_name_of_its_own() -> None:
    lonely = KIN | {"sun": "star"}
    made = Pairs.of(NAMES, {"cat": {"dog": 0.301, "sun": 0.5}, "red": {"big": 0.304}}, lonely)
    assert made.rates == [0.304, 0.301]
    assert [percent(rate) for rate in (0.3, 0.06, 0.07, 0.301, 0.304)] == ["30%", "6%", "7%", "30.1%", "30.4%"]


@pytest.mark.parametrize(
    ("rates", "kin"),
    [
        ({"cat": {"dog": 0.301}, "red": {"big": 0.304}}, {}),
        ({"cat": {"dog": 0.3, "sun": 0.5}}, KIN | {"sun": "star"}),
        ({"cat": {"dog": 0.3}}, KIN | {"cat": "king"}),
    ],
    ids=["rates that round alike", "a rate whose associates have no kin", "owners without kin"],
)
def test_any_associations_lead_to_a_verdict(
    rates: dict, kin: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    monkeypatch.setattr(method, "known_pairs", lambda *_: Pairs.of(NAMES, rates, kin))
    found = method.run(Config(dictionary="toy", store=tmp_path, n_deals=9))
    for rate in Pairs.of(NAMES, rates, kin).rates:
        assert f"goes with it at {percent(rate)}" in found.verdict
        assert f"latents, {percent(rate)}, above kin" in found.figures
    assert "nan" not in found.verdict
    found.save(tmp_path / "out")


def test_the_share_is_one_for_the_owner_and_zero_for_strangers() -> None:
    made = pairs()
    means = torch.zeros(2, 8, dtype=torch.float64)
    means[0] = torch.tensor([10.0, 6.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    means[1] = torch.tensor([1.0, 1.0, 1.0, 5.0, 3.0, 1.0, 1.0, 1.0])
    assert shares(means, made)[0].tolist() == pytest.approx([1, 0.5, 0.125, 0, 0, 0, 0, 0])
    found = Strengths.of(means, made)
    assert found.share.tolist() == pytest.approx([0.5, 0.125, 0.5])
    assert found.kin.tolist() == pytest.approx([0, 0, 0]) and found.rank.tolist() == [1, 1, 1]
    assert found.gain(0.3, 0).mean == pytest.approx(0.5) and found.ranks(0.06, 0).mean == 1
    together, dealt = correlation(means, made, 999, 0)
    assert together.mean == pytest.approx(1) and dealt <= 1


def test_answers_that_have_nothing_to_do_with_the_rates_correlate_by_chance() -> None:
    names = [f"class {number}" for number in range(60)]
    made = Pairs.of(names, {names[i]: {names[59 - i]: 0.3} for i in range(30)}, {})
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(30, 60, generator=generator, dtype=torch.float64)
    chance, dealt = correlation(means, made, 999, 0)
    assert chance.low < 0 < chance.high and 0 < dealt < 0.4
    for row, owner in enumerate(range(30)):
        means[row, 59 - owner] += 2
    assert correlation(means, made, 999, 0)[0].low > dealt


def test_items_that_name_another_class_besides_are_left_out() -> None:
    sample = bench().sample
    companion = np.full(sample.n_items, -1)
    companion[3] = 2
    factors = dict(sample.factors) | {"companion": companion, "light": np.full(sample.n_items, 0.5)}
    names = dict(sample.label_names) | {"companion": NAMES}
    changed = type(sample)(**{**vars(sample), "factors": factors, "label_names": names, "labels": sample.labels})
    assert (~alone(changed, "concept")).nonzero()[:, 0].tolist() == [3]


def test_the_detector_is_chosen_on_one_half_and_read_on_the_other() -> None:
    made = bench()
    shown = Shown.of(made)
    owners = torch.tensor([0, 4])
    values = torch.randn(made.sample.n_items, 5, generator=torch.Generator().manual_seed(1))
    values[shown.number == 0, 3] += 9
    values[(shown.number == 4) & made.sample.match, 2] += 9
    read = shown.read(values, owners)
    assert read.unit.tolist() == [3, 2] and float(read.auc[0]) == 1 and 0.3 < float(read.auc[1]) < 0.7
    held = (shown.number == 6) & ~made.sample.match
    assert float(read.means[0, 6]) == pytest.approx(float(values[held, 3].mean()), abs=1e-5)


def test_a_planted_association_is_found_and_its_controls_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the toy, pictures of a cog are those of a cat and a dog together: the cat's latent answers it half as strongly.
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    given = tmp_path / "rates.json"
    given.write_text(json.dumps({"cat": {"cog": 0.3}, "dog": {"cog": 0.3}, "sun": {"hat": 0.3}, "red": {"hat": 0.3}}))
    found = method.run(Config(dictionary="toy", store=tmp_path, associations=given))
    assert found.figures["latents, 30%, rank in kin"] == 1
    assert found.figures["latents, 30%, share"] > 0.9
    assert found.figures["latents, correlation"] > found.figures["latents, correlation, dealt"]
    assert "not distinguishable from none" not in found.verdict
    assert {"neurons", "random directions", "difference of means", "latents, by text"} <= {
        r["units"] for r in found.rows
    }
    found.save(tmp_path / "out")
    assert (tmp_path / "out" / "lab-associations.png").stat().st_size > 5000


def test_inputs_that_know_nothing_and_names_that_are_none_are_refused(tmp_path: Path) -> None:
    made = bench()
    with pytest.raises(EvaluationError, match="do not know what goes with what"):
        known_pairs(made, None)
    broken = tmp_path / "rates.json"
    broken.write_text('["cat"]')
    with pytest.raises(EvaluationError, match="not a JSON such as"):
        known_pairs(made, broken)
    with pytest.raises(EvaluationError, match=r"no class 'dogg'.* Did you mean 'dog'"):
        Pairs.of(NAMES, {"cat": {"dogg": 0.3}}, {})
    with pytest.raises(EvaluationError, match="nothing goes with anything"):
        Pairs.of(NAMES, {}, {})
    with pytest.raises(ConfigError, match="n_deals"):
        Config(dictionary="toy", store=tmp_path, n_deals=0)


def test_the_concept_world_tells_its_rates_kin_and_frequencies() -> None:
    inputs = ConceptInputs(World(), "score", 4)
    assert inputs.associations()["anna"] == {"ben": 0.30, "guitar": 0.06}
    kin = inputs.kin()
    assert kin["arvia"] == kin["bolund"] != kin["elvane"] and kin["anna"] == kin["ben"] == "person"
    shares_of = inputs.frequencies()
    assert sum(shares_of.values()) == pytest.approx(1)
    assert max(shares_of.values()) / min(shares_of.values()) == pytest.approx(1000)


def test_spreads_hold_their_mean_and_rank_correlations_are_scipys() -> None:
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(0)
    one = torch.randn(200, generator=generator).round(decimals=1)
    other = one + torch.randn(200, generator=generator)
    drawn = rank_correlation(one, other)
    found = drawn.spread
    assert found.mean == pytest.approx(float(spearmanr(one, other).statistic))
    assert found.low < found.mean < found.high and found.apart_from(0)
    of = Spread.of(torch.tensor([1.0, float("nan"), 3.0]))
    assert of.mean == 2 and not of.apart_from(2) and of.low >= 1
    assert torch.tensor(Spread.of(torch.tensor([float("nan")]))).isnan().all()
    assert drawn.minus(drawn) == (0, 0, 0), "draws over the same things are paired"
    difference = drawn.minus(rank_correlation(one, -other))
    assert difference.mean == pytest.approx(2 * found.mean) and difference.said == "more than"
    assert [Spread(*ends).said for ends in ((-2, -3, -1), (0, -1, 1))] == ["less than", "not distinguishable from"]
