import numpy as np
import pytest
import torch
from test_products import as_dense, random_activations, sparse

from sae.errors import EvaluationError
from sae.evaluation.universality import best_partners, correlations, shuffled_items, universality_scores


def alternating(n_items: int) -> torch.Tensor:
    return torch.arange(n_items) % 2 == 0


@pytest.mark.parametrize("make_one", [sparse, as_dense])
@pytest.mark.parametrize("make_two", [sparse, as_dense])
def test_correlations_are_those_of_numpy(make_one, make_two):
    one, two = random_activations(300, 70, 0), random_activations(300, 40, 1)
    one[:, 3], two[:, 5] = 0, 0
    found = torch.cat([block for _, block in correlations(make_one(one), make_two(two))])
    with np.errstate(invalid="ignore"):
        naive = np.corrcoef(one.double().T, two.double().T)[:70, 70:]
    torch.testing.assert_close(found, torch.from_numpy(naive).nan_to_num(0.0), atol=1e-6, rtol=0)


def test_a_constant_unit_correlates_with_nothing():
    constant = torch.full((50, 2), 0.1)
    (_, block), *_ = correlations(as_dense(constant), as_dense(torch.rand(50, 3)))
    assert float(block.abs().max()) == 0


def test_a_permuted_copy_is_universal_and_dead_latents_count_as_zero():
    one = random_activations(400, 30, 0)
    one[:, 0] = 0
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    match = alternating(400)
    partners = best_partners(sparse(one), sparse(one[:, order]), match)
    assert torch.equal(order[partners.partner[1:]], torch.arange(1, 30)) and partners.partner[0] == -1
    (measured,) = universality_scores(sparse(one), sparse(one[:, order]), match)
    torch.testing.assert_close(measured.values[1:], torch.ones(29, dtype=torch.float64))
    assert float(measured.values[0]) == 0


def test_the_partner_is_chosen_on_one_half_and_scored_on_the_other():
    one, two = random_activations(200, 10, 0), random_activations(200, 12, 1)
    match = alternating(200)
    partners = best_partners(sparse(one), sparse(two), match)
    for unit in range(10):
        on_match = [np.corrcoef(one[match, unit], two[match, other])[0, 1] for other in range(12)]
        best = int(np.argmax(on_match))
        assert int(partners.partner[unit]) == best
        assert float(partners.chosen_at[unit]) == pytest.approx(on_match[best], abs=1e-6)
        naive = np.corrcoef(one[~match, unit], two[~match, best])[0, 1]
        assert float(partners.held_out[unit]) == pytest.approx(naive, abs=1e-6)


def test_unrelated_and_shuffled_units_are_at_chance_although_the_choice_is_flattered():
    one, two = random_activations(2000, 200, 0, 0.02), random_activations(2000, 200, 1, 0.02)
    match = alternating(2000)
    for other in (sparse(two), shuffled_items(sparse(one), match, 0)):
        partners = best_partners(sparse(one), other, match)
        assert float(partners.chosen_at.mean()) > 0.05
        assert abs(float(partners.held_out.mean())) < 0.01


def test_shuffling_keeps_the_halves():
    one = random_activations(100, 5, 0)
    match = alternating(100)
    shuffled = shuffled_items(sparse(one), match, 0)
    dense = shuffled.columns(torch.arange(5))
    assert not torch.equal(dense, one)
    for half in (match, ~match):
        torch.testing.assert_close(dense[half].sort(0).values, one[half].sort(0).values)


def test_shuffling_keeps_what_the_groups_explain():
    group = torch.arange(90) % 3
    one = (group == 1).float()[:, None] * torch.rand(90, 2)
    dense = shuffled_items(sparse(one), group, 0).columns(torch.arange(2))
    assert torch.equal(dense > 0, one > 0) and not torch.equal(dense, one)


def test_other_rows_are_refused():
    with pytest.raises(EvaluationError, match="units of 100 and 90 items"):
        best_partners(sparse(torch.rand(100, 2)), sparse(torch.rand(90, 2)), alternating(100))
