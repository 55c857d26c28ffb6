"""Labelling blind: what raters see, what is kept, and how far they agree."""

import json
import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from sae.errors import CatalogError
from sae.features.judging.agreement import Kappa, of_shares, wilson
from sae.features.judging.labelling import FILE, LOG, Labelling

ITEM = [4, 9, 2, 4, 7, 9]
"""Items 4 and 9 are shown twice."""
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def labelling(folder: Path) -> Labelling:
    slots = [{"tokens": [f"token {number}"], "at": 0} for number in range(len(ITEM))]
    return Labelling.write(folder, ["cat", "dog", "other"], slots, {"item": ITEM, "level": [0] * 6, "settings": {}})


@given(PAIRS)
def test_kappa_is_that_of_the_reference(pairs: list[tuple[int, int]]) -> None:
    found = Kappa.of(pairs)
    first, second = zip(*pairs, strict=True)
    if len({*first, *second}) == 1:
        assert math.isnan(found.value) and found.same == found.n
        return
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    assert found.interval[0] <= found.value + 1e-12 and found.value - 1e-12 <= found.interval[1] <= 1


def test_the_interval_of_kappa_holds_the_truth_as_often_as_it_says() -> None:
    rng, hits, agree = np.random.default_rng(0), 0, 0.8
    for _ in range(400):
        first = rng.choice(3, 40, p=[0.5, 0.3, 0.2])
        second = np.where(rng.random(40) < agree, first, rng.choice(3, 40, p=[0.5, 0.3, 0.2]))
        low, high = Kappa.of(list(zip(first.tolist(), second.tolist(), strict=True))).interval
        hits += low <= agree <= high
    assert 0.91 <= hits / 400 <= 0.99, (
        "where labels are kept with that chance and else drawn anew, kappa is that chance"
    )


def test_where_all_agree_the_interval_is_still_one() -> None:
    low, high = Kappa.of([(0, 0)] * 6 + [(1, 1)] * 6).interval
    assert high == 1 and 0.4 < low < 0.6
    with pytest.raises(ValueError, match="twice"):
        Kappa.of([])


def test_the_interval_of_a_weighted_share_is_that_of_one_where_there_is_one() -> None:
    assert of_shares([(3, 10)], [1.0]) == pytest.approx(wilson(3, 10))
    low, high = of_shares([(10, 10), (0, 10)], [0.1, 0.9])
    assert 0 <= low < 0.1 < high < 0.4


def test_labels_are_kept_and_the_last_word_counts(tmp_path: Path) -> None:
    made = labelling(tmp_path)
    made.label("Ada", 0, 1)
    made.label("Bob", 0, 2)
    made.label("Ada", 0, 0)
    assert Labelling(tmp_path).said() == made.said() == {"Ada": {0: 0}, "Bob": {0: 2}}
    assert len((tmp_path / LOG).read_text().splitlines()) == 3, "nothing is ever rewritten"
    assert made.to_json("Ada")["answers"] == [0] + [None] * 5 and made.to_json("Cleo")["answers"] == [None] * 6


def test_a_rater_who_is_done_learns_how_far_they_agree_with_themselves(tmp_path: Path) -> None:
    made = labelling(tmp_path)
    for slot, category in enumerate([0, 1, 2, 0, 2]):
        made.label("Ada", slot, category)
    assert made.to_json("Ada")["agreement"] is None
    made.label("Ada", 5, 0)
    assert made.repeats() == {"Ada": [(0, 0), (1, 0)]}
    told = made.to_json("Ada")["agreement"]
    assert (told["same"], told["n"], told["kappa"]) == (1, 2, 0)
    made.label("Ada", 5, 1)
    made.label("Bob", 5, 0)
    assert made.to_json("Ada")["agreement"]["kappa"] == 1 and made.between() == [(1, 0)]


def test_what_is_sent_tells_neither_the_item_nor_its_level(tmp_path: Path) -> None:
    told = labelling(tmp_path).to_json("Ada")
    assert set(told) == {"categories", "slots", "answers", "agreement"}
    assert set(json.loads((tmp_path / FILE).read_text())) == {"categories", "slots"}
    assert all(set(slot) == {"tokens", "at"} for slot in told["slots"])


@pytest.mark.parametrize(
    ("rater", "slot", "category", "message"),
    [("", 0, 0, "rater"), ("x" * 81, 0, 0, "rater"), ("\ud800", 0, 0, "rater"), (None, 0, 0, "rater"),
     ("Ada", 6, 0, "slot: must be a number from 0 to 5, got 6"), ("Ada", -1, 0, "slot"), ("Ada", "0", 0, "slot"),
     ("Ada", True, 0, "slot"), ("Ada", 0, 3, "category: must be a number from 0 to 2"), ("Ada", 0, None, "category")],
)  # fmt: skip
def test_what_is_no_label_is_refused(tmp_path: Path, rater: str, slot: int, category: int, message: str) -> None:
    made = labelling(tmp_path)
    with pytest.raises(CatalogError, match=message):
        made.label(rater, slot, category)
    assert not (tmp_path / LOG).exists()


def test_a_torn_line_and_strange_ones_lose_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labelling(tmp_path).label("Ada", 0, 1)
    with (tmp_path / LOG).open("a") as file:
        file.write('{"rater": "Eve", "slot": 99, "category": 0}\n{"rater": "Ada", "sl')
    Labelling(tmp_path).label("Ada", 1, 2)
    assert Labelling(tmp_path).said() == {"Ada": {0: 1, 1: 2}}
    assert caplog.text.count("left out") >= 2


def _label_many(folder: Path, rater: str) -> None:
    made = Labelling(folder)
    for slot in range(len(ITEM)):
        made.label(rater, slot, slot % 3)


def test_raters_in_several_processes_lose_nothing(tmp_path: Path) -> None:
    labelling(tmp_path)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_label_many, args=(tmp_path, name)) for name in ("Ada", "Bob")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert {rater: len(said) for rater, said in Labelling(tmp_path).said().items()} == {"Ada": 6, "Bob": 6}


def test_a_folder_without_a_labelling_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"labelling\.json: cannot be read"):
        Labelling(tmp_path)
