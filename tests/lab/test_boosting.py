"""Boosts: what counts as a rise, among which texts, and of which units drawn at random."""

import pytest
import torch
from toy_joint import NAMES, bench

from sae.errors import InputsError
from sae.lab.words.boosting import Boosted, Texts, alone, drawn, rank_of_own
from sae.lab.words.joint import JointSpace


def test_the_rank_counts_ties_against_the_text() -> None:
    rises = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]])
    assert rank_of_own(rises, torch.tensor([1, 0])).tolist() == [1, 3]


def test_texts_are_the_classes_and_each_other_phrase_once() -> None:
    space = JointSpace.of(bench())
    texts = Texts.of(space, ["owl", "big cat", "big cat", "red sun"])
    assert texts.names == (*NAMES, "big cat", "red sun") and texts.numbers(["red sun", "owl"]).tolist() == [9, 5]
    assert texts.directions.norm(dim=1).tolist() == pytest.approx([1] * 10)
    torch.testing.assert_close(Texts.of(space, []).directions, space.words.directions)
    with pytest.raises(InputsError, match="empty"):
        Texts.of(space, [""])


def test_a_boost_is_read_at_its_own_text() -> None:
    space = JointSpace.of(bench())
    texts, own = Texts.of(space, ["big cat"]), torch.tensor([8, 3, 0])
    groups = [{0: 1.0, 4: 1.0}, *alone(torch.tensor([3, 2]))]
    boosted = Boosted.of(space, space.bench.latents, groups, texts.directions, own)
    rises = space.rises(space.bench.latents, groups, texts.directions)
    assert boosted.rise.tolist() == [float(rises[row, text]) for row, text in enumerate(own)]
    assert boosted.rank.tolist()[:2] == [1, 1] and boosted.rank[2] > 1
    assert boosted.figures("toy")["toy, rises most"] == pytest.approx(2 / 3)
    assert boosted.row(1, 3, "drawn_") == {"drawn_rise": round(float(rises[1, 3]), 4), "drawn_rank_of_rise": 1}


def test_a_row_is_the_mean_and_the_median_over_what_was_drawn_for_a_text() -> None:
    boosted = Boosted(torch.tensor([0.1, 9.0, 0.2, 9.0, 0.6, 9.0]), torch.tensor([4, 99, 1, 99, 3, 99]))
    assert boosted.row(0, 2) == {"rise": 0.3, "rank_of_rise": 3}
    assert boosted.row(4, 6) == {"rise": 0.6, "rank_of_rise": 3}


def test_units_are_drawn_of_those_that_fire() -> None:
    units = bench().latents
    found = drawn(units, 50, 3)
    assert units.alive[found].all() and len(found.unique()) > 1
    assert torch.equal(found, drawn(units, 50, 3)) and not torch.equal(found, drawn(units, 50, 4))
