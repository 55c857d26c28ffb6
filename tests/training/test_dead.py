import numpy as np
import torch

from sae.dictionaries.codes import Codes
from sae.training.dead import FiringCounts, rate_histogram

D_SAE, BATCH, K = 12, 5, 3


def random_codes(generator: torch.Generator) -> Codes:
    indices = torch.stack([torch.randperm(D_SAE - 2, generator=generator)[:K] for _ in range(BATCH)])
    values = torch.randn(BATCH, K, generator=generator).relu()
    return Codes.from_topk(indices, values, D_SAE)


def test_counts_equal_a_walk_over_all_entries() -> None:
    generator = torch.Generator().manual_seed(0)
    firing = FiringCounts(D_SAE, 10, torch.device("cpu"))
    since, total = np.zeros(D_SAE, int), np.zeros(D_SAE, int)
    for _ in range(20):
        codes = random_codes(generator)
        fired = firing.update(codes)
        naive = [sum(row[latent] != 0 for row in codes.dense().tolist()) for latent in range(D_SAE)]
        assert fired.tolist() == naive
        for latent, n_fired in enumerate(naive):
            since[latent] = 0 if n_fired else since[latent] + BATCH
        total += naive
        assert firing.since_fired.tolist() == since.tolist()
        assert firing.dead().tolist() == (since >= 10).tolist()
    np.testing.assert_allclose(firing.rates(), total / (20 * BATCH))


def test_a_stored_zero_is_no_firing() -> None:
    firing = FiringCounts(4, 1, torch.device("cpu"))
    firing.update(Codes.from_topk(torch.tensor([[0, 1]]), torch.tensor([[0.0, 2.0]]), 4))
    assert firing.dead().tolist() == [True, False, True, True]
    assert firing.dead_fraction() == 0.75


def test_rates_start_a_new_window() -> None:
    firing = FiringCounts(2, 100, torch.device("cpu"))
    codes = Codes.from_topk(torch.tensor([[0], [1]]), torch.tensor([[1.0], [1.0]]), 2)
    firing.update(codes)
    firing.rates()
    assert firing.rates().tolist() == [0.0, 0.0]
    firing.update(codes)
    assert firing.rates().tolist() == [0.5, 0.5]


def test_state_continues_the_counts() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (FiringCounts(D_SAE, 10, torch.device("cpu")) for _ in range(2))
    first.update(random_codes(generator))
    second.load_state_dict(first.state_dict())
    codes = random_codes(generator)
    first.update(codes)
    second.update(codes)
    assert torch.equal(first.since_fired, second.since_fired)
    np.testing.assert_array_equal(first.rates(), second.rates())


def test_histogram_counts_every_latent_once() -> None:
    counts, edges = rate_histogram(np.array([0.0, 1e-9, 1e-3, 0.5, 1.0]))
    assert sum(counts) == 5
    assert counts[0] == 2
    assert (edges[0], edges[-1]) == (-6.0, 0.0)
    assert len(edges) == len(counts) + 1
