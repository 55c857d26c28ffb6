"""The search finds latents that were planted, and its figures are those of brute force."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch
from toy_joint import LAYER, NAMES, PARTS, bench

from sae.errors import ConfigError, InputsError
from sae.features.live.words import Words
from sae.inputs.concepts import ConceptInputs, World
from sae.lab.concepts import Concepts, beside, compared
from sae.lab.words import search as method
from sae.lab.words.joint import JointSpace, rank_of_own
from sae.lab.words.search import Config, drawn_share, found_share, search
from sae.lab.workbench import Workbench
from sae.subjects.load import load


def test_the_nearest_come_first_and_what_points_nowhere_last() -> None:
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 5.0], [-1.0, 0.2]])
    top, cosines = search(places, torch.tensor([[2.0, 0.0]]), 10)
    assert top[:, 0].tolist() == [1, 2, 3, 0]
    assert cosines[:2, 0].tolist() == pytest.approx([1, 0.5**0.5])


@pytest.mark.parametrize("hookpoint", ["visual.embedding", LAYER])
def test_planted_latents_are_found_by_name_and_by_phrase(hookpoint: str) -> None:
    space = JointSpace.of(bench(hookpoint))
    (places,) = space.places([space.bench.latents])
    top, _ = search(places, space.words.towards(NAMES[:6]), 1)
    assert top[0].tolist() == list(range(6))
    both, _ = search(places, space.words.towards(["the cat and the owl"]), 2)
    assert set(both[:, 0].tolist()) == {0, 5}


def test_shares_are_those_of_brute_force() -> None:
    auc = torch.rand(7, 5, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.65
    drawn = [float((auc[list(chosen)].amax(0) > 0.9).double().mean()) for chosen in combinations(range(7), 3)]
    assert drawn_share(auc, 3) == pytest.approx(sum(drawn) / len(drawn))
    top = torch.randint(7, (2, 5), generator=torch.Generator().manual_seed(1))
    expected = [any(auc[unit, concept] > 0.9 for unit in top[:, concept]) for concept in range(5)]
    assert float(found_share(auc, top)) == pytest.approx(sum(expected) / 5)


def test_the_rank_counts_ties_against_the_word() -> None:
    rises = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]])
    assert rank_of_own(rises, torch.tensor([1, 0])).tolist() == [1, 3]


def test_detectors_are_chosen_on_one_half_and_scored_on_the_other() -> None:
    made = bench()
    concepts = Concepts.of(JointSpace.of(made))
    matched, scored = made.latents.auc
    torch.testing.assert_close(concepts.auc(made.latents.responses), scored)
    assert concepts.detectors(made.latents.responses).tolist() == matched.argmax(0).tolist()


def test_a_whole_run_says_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "open", lambda config: bench())
    config = Config(dictionary="toy", store=tmp_path, phrases=("owl", "big cat"), n_top=2)
    found = method.run(config)
    assert [row["phrase"] for row in found.rows] == ["owl", "big cat"]
    assert found.rows[0]["latents"].split()[0] == "5" and found.rows[0]["rank_of_rise"] == 1
    assert set(found.rows[1]["latents"].split()) == {"0", "4"} and found.rows[1]["rank_of_rise"] == ""
    whole = found.figures["latents, activation, path"]
    assert whole >= 6 / len(NAMES) > found.figures["latents, activation, drawn"]
    assert found.figures["latents, boosted, path, rises most"] >= 6 / len(NAMES)
    found.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "search.json").read_text())["verdict"] == found.verdict
    assert (tmp_path / "out" / "lab-search.png").stat().st_size > 5000
    assert PARTS.keys() < set(NAMES)


def test_a_word_that_the_subject_never_saw_is_refused_with_the_nearest_one() -> None:
    subject = load("builtin:concepts-clip-rn")
    words = Words(subject, ConceptInputs(World(), "score", 4))
    with pytest.raises(InputsError, match=r"never trained on the word 'ballon'.* Did you mean 'balloon'"):
        words.towards(["a red ballon"])
    with pytest.raises(InputsError, match="empty"):
        words.towards([" "])
    with pytest.raises(InputsError, match=r"no class is called 'catt'.* Did you mean 'cat'"):
        words.number("catt")
    assert words.towards(["a red balloon"]).norm() == pytest.approx(1, abs=1e-4)


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_top"):
        Config(dictionary="toy", store=tmp_path, n_top=0)


@pytest.mark.parametrize(
    ("share", "control", "n", "said"),
    [(0.7, 0.2, 239, "more"), (0.2, 0.7, 239, "less"), (0.20, 0.16, 239, "not"), (8 / 12, 4 / 12, 12, "not")],
)
def test_a_share_is_told_from_a_control_only_beyond_chance(share: float, control: float, n: int, said: str) -> None:
    assert compared(share, control, n).startswith(said)


def test_a_control_of_few_things_is_told_from_only_by_a_lot() -> None:
    assert compared(0.05, 0.0, 1024) == compared(0.05, 0.0, 1024, 1024) == "more than"
    assert compared(0.05, 0.0, 1024, 20) == "not distinguishable from"
    assert compared(0.0, 1.0, 3, 3) == "less than" and compared(0.0, 0.0, 5) == "not distinguishable from"
    told = beside(0.2, 500, {"neurons": (0.01, 500), "random directions": (0.02, 500), "dealt": (0.2, 9)})
    assert told == "more than neurons (1.0%) and random directions (2.0%), not distinguishable from dealt (20.0%)"
