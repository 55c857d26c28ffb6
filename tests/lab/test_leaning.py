"""Association tests beside naive counting, and that chance finds nothing in nineteen audits of twenty."""

from math import comb

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.errors import EvaluationError
from sae.lab.bias.leaning import Effects, observed, outlying, stands_out


def test_counts_and_chances_are_those_of_a_hypergeometric_draw() -> None:
    judged = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    has = torch.tensor([[1, 1, 0, 1, 0, 0, 0, 0]], dtype=torch.bool).T
    shown = torch.ones_like(has)
    shown[7] = False
    found = observed(judged, has, shown, 2)
    assert found.n_with.tolist() == [3] and found.n_without.tolist() == [4]
    assert found.rate_with[:, 0].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert found.rate_without[:, 0].tolist() == pytest.approx([1 / 4, 3 / 4])
    naive = sum(comb(3, k) * comb(4, 3 - k) for k in (2, 3)) / comb(7, 3)
    assert float(found.p[0, 0]) == pytest.approx(naive)
    with pytest.raises(EvaluationError, match="some with and some without"):
        observed(judged, torch.zeros_like(has), shown, 2)


def test_independent_labels_are_found_together_in_one_audit_of_twenty_at_most() -> None:
    generator, hits = torch.Generator().manual_seed(0), 0
    for _ in range(100):
        judged = torch.randint(6, (300,), generator=generator)
        has = torch.rand(300, 8, generator=generator) < torch.linspace(0.1, 0.6, 8)
        hits += bool(observed(judged, has, torch.ones_like(has), 6).found.any())
    assert hits <= 10


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=4, max_size=9, unique=True))
def test_outlying_is_students_t_of_one_against_the_others(values: list[float]) -> None:
    row = torch.tensor([values], dtype=torch.float64)
    for number in range(len(values)):
        others = torch.cat([row[0, :number], row[0, number + 1 :]])
        if others.std() < 1e-3:
            continue
        naive = (row[0, number] - others.mean()) / (others.std() * (1 + 1 / len(others)) ** 0.5)
        assert float(outlying(row)[0, number]) == pytest.approx(float(naive), rel=1e-4, abs=1e-6)


def test_one_effect_among_others_like_it_does_not_stand_out_and_a_large_one_does() -> None:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(200, 14, generator=generator)
    assert int(stands_out(outlying(drawn), drawn.numel()).sum()) <= 2
    drawn[0, 3] += 12
    assert stands_out(outlying(drawn), drawn.numel())[0, 3]


def test_effects_are_differences_from_the_other_values_of_the_same_picture() -> None:
    logits = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]], [[2.0, 0.0], [4.0, 0.0], [9.0, 0.0]]])
    effects = Effects(logits, ("a", "b", "c"))
    assert effects.mean[:, 0].tolist() == pytest.approx([(1 - 4 + 2 - 6.5) / 2, (0 + 4 - 5.5) / 2, (5 - 2 + 9 - 3) / 2])


def test_values_swapped_within_pictures_set_a_level_that_chance_seldom_passes() -> None:
    generator, passed = torch.Generator().manual_seed(2), 0
    for number in range(20):
        own = torch.randn(60, 1, 5, generator=generator)
        effects = Effects(own + torch.randn(60, 4, 5, generator=generator), tuple("abcd"))
        passed += bool(effects.scores.abs().max() > effects.largest_by_chance(number, 200).quantile(0.95))
    assert passed <= 4
    logits = torch.randn(60, 4, 5, generator=generator)
    logits[:, 0, 2] += 1.5
    effects = Effects(logits, tuple("abcd"))
    assert effects.scores[0, 2] > effects.largest_by_chance(0, 200).max()
    assert effects.moved.argmax() == 0
