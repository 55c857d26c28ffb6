import itertools

import pytest
import torch

from sae.dictionaries.initialisation import random_unit_rows
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import EvaluationError
from sae.evaluation import stability as module
from sae.evaluation.stability import assign, match_dictionaries, match_random, stability_scores


def dictionary(n_latents: int, d_in: int = 16, seed: int = 0) -> TopK:
    made = TopK(TopKConfig(d_sae=n_latents, k=2), d_in)
    generator = torch.Generator().manual_seed(seed)
    made.W_dec.data = random_unit_rows(n_latents, d_in, generator)
    made.W_enc_rows.data = made.W_dec + 0.1 * torch.randn(n_latents, d_in, generator=generator)
    return made


def permuted(original: TopK, order: torch.Tensor) -> TopK:
    copy = TopK(original.config, original.d_in)
    copy.W_dec.data, copy.W_enc_rows.data = original.W_dec.data[order], original.W_enc_rows.data[order]
    return copy


def values(matching) -> dict[str, torch.Tensor]:
    return {measured.definition.name: measured.values for measured in stability_scores(matching)}


def test_a_permuted_copy_is_entirely_stable():
    one = dictionary(40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    matching = match_dictionaries(one, permuted(one, order))
    assert torch.equal(order[matching.partner], torch.arange(40))
    for name, found in values(matching).items():
        assert float((found - 1).abs().max()) < 1e-6, name


def test_the_matching_is_the_best_of_all():
    one, two = (
        random_unit_rows(5, 4, torch.Generator().manual_seed(0)),
        random_unit_rows(5, 4, torch.Generator().manual_seed(1)),
    )
    partner, cosine = assign(one, two)
    best = max(sum(float(one[i] @ two[j]) for i, j in enumerate(order)) for order in itertools.permutations(range(5)))
    assert sorted(partner.tolist()) == list(range(5))
    assert float(cosine.sum()) == pytest.approx(best, abs=1e-6)


def test_the_greedy_matching_takes_the_most_similar_pair_first(monkeypatch):
    monkeypatch.setattr(module, "EXACT_LATENTS", 10)
    one, two = (
        random_unit_rows(30, 8, torch.Generator().manual_seed(0)),
        random_unit_rows(20, 8, torch.Generator().manual_seed(1)),
    )
    cosines, naive = one @ two.T, torch.full((30,), -1)
    while cosines.max() > -2:
        row, column = divmod(int(cosines.argmax()), 20)
        naive[row] = column
        cosines[row], cosines[:, column] = -9.0, -9.0
    assert torch.equal(assign(one, two)[0], naive)


def test_the_greedy_matching_ends_on_exact_ties(monkeypatch):
    monkeypatch.setattr(module, "EXACT_LATENTS", 1)
    same = torch.ones(6, 4)
    assert sorted(assign(same, same)[0].tolist()) == list(range(6))


def test_dead_latents_are_not_matched_and_count_as_zero():
    one = dictionary(20)
    alive = torch.ones(20, dtype=torch.bool)
    alive[:5] = False
    matching = match_dictionaries(one, one, (alive, torch.ones(20, dtype=torch.bool)))
    assert matching.partner.tolist() == [-1] * 5 + list(range(5, 20))
    for found in values(matching).values():
        assert float(found.mean()) == pytest.approx(0.75, abs=1e-6)
    nobody = match_dictionaries(one, one, (alive, torch.zeros(20, dtype=torch.bool)))
    assert all(float(found.abs().sum()) == 0 for found in values(nobody).values())


def test_independent_dictionaries_score_what_random_directions_do():
    one, two = dictionary(200, 32, seed=0), dictionary(200, 32, seed=7)
    found = values(match_dictionaries(one, two))
    control = values(match_random(one, torch.ones(200, dtype=torch.bool), seed=3))
    assert abs(float(found["stability"].mean() - control["stability"].mean())) < 0.02
    assert abs(float(found["max_cosine"].mean() - control["max_cosine"].mean())) < 0.02
    assert float(found["stable_share"].mean()) < 0.02
    assert (found["max_cosine"] >= found["stability"] - 1e-6).all()


def test_latents_that_agree_by_decoder_alone_are_stable_but_not_shared():
    one = dictionary(30)
    two = permuted(one, torch.arange(30))
    two.W_enc_rows.data = one.W_enc_rows.data.roll(1, 0)
    found = values(match_dictionaries(one, two))
    assert float(found["stable_share"].mean()) == 1
    assert float(found["shared_share"].mean()) == 0


def test_other_widths_are_refused():
    with pytest.raises(EvaluationError, match="width 16 and 8"):
        match_dictionaries(dictionary(4, 16), dictionary(4, 8))
