import pytest
import torch
from torch import Tensor

from sae.dictionaries.threshold import Thresholded, ThresholdedConfig
from sae.errors import DictionaryError

D_IN, ROWS = 8, 1000


def vectors(n: int = ROWS) -> Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(0)) + 0.5


def directions(rates: Tensor) -> Thresholded:
    return Thresholded.random_directions(vectors(), rates, torch.Generator().manual_seed(1))


def test_codes_are_the_pre_activations_above_the_threshold() -> None:
    dictionary = Thresholded(ThresholdedConfig(d_sae=12), D_IN)
    dictionary.initialise(vectors(), torch.Generator().manual_seed(0))
    dictionary.threshold.copy_(torch.linspace(-1, 2, 12))
    x = vectors(20)
    expected = torch.zeros(20, 12)
    for row in range(20):
        for unit in range(12):
            pre = float(dictionary.W_enc[:, unit] @ (x[row] - dictionary.b_dec) + dictionary.b_enc[unit])
            expected[row, unit] = pre if pre > dictionary.threshold[unit] else 0
    torch.testing.assert_close(dictionary.encode(x).dense(), expected)
    assert len(dictionary.encode(x).values) == int((expected != 0).sum())


def test_random_directions_fire_at_the_rates_asked_for() -> None:
    rates = torch.tensor([0.0, 0.001, 0.01, 0.2, 0.5, 0.9, 1.0] * 50)
    dictionary = directions(rates)
    codes = dictionary.encode(vectors())
    wanted = (rates * ROWS).round().long().clamp(max=ROWS - 1)
    assert torch.equal(codes.n_fired(), wanted)
    assert (codes.values > 0).all(), "firing means a positive code, also of a unit that fires on most rows"
    assert torch.isinf(dictionary.threshold[rates == 0]).all()
    torch.testing.assert_close(dictionary.W_dec.norm(dim=1), torch.ones(len(rates)))


def test_a_rare_unit_fires_once_rather_than_never() -> None:
    assert directions(torch.full((20,), 1e-6)).encode(vectors()).n_fired().tolist() == [1] * 20


def test_units_that_are_never_to_fire_never_do() -> None:
    never = directions(torch.zeros(5))
    assert never.threshold.isinf().all() and not never.encode(vectors()).values.numel()


def test_directions_depend_on_the_seed_alone() -> None:
    rates = torch.rand(30, generator=torch.Generator().manual_seed(2))
    assert directions(rates).hash == directions(rates).hash
    other = Thresholded.random_directions(vectors(), rates, torch.Generator().manual_seed(3))
    assert other.hash != directions(rates).hash


def test_neurons_get_the_distribution_of_the_rates() -> None:
    rates = torch.cat([torch.zeros(16), torch.linspace(0.01, 0.3, 48)])
    x = vectors() * torch.ones(D_IN) + torch.linspace(-0.5, 0.5, D_IN)
    neurons = Thresholded.neurons(x, rates)
    codes = neurons.encode(x)
    rate = codes.n_fired() / ROWS
    assert (rate.diff() >= 0).all(), "the neuron most often above zero fires most"
    assert (rate == 0).sum() == D_IN // 4, "as large a share is dead"
    assert float(codes.l0().float().mean()) == pytest.approx(float(rates.sum()) * D_IN / len(rates), rel=0.05)
    kept = codes.dense()
    assert torch.equal(kept[kept != 0], x[kept != 0])


def test_equal_activations_stay_together() -> None:
    x = vectors().clamp_min(1.5) - 1.5
    neurons = Thresholded.neurons(x, torch.full((10,), 0.9))
    assert torch.equal(neurons.encode(x).dense(), x)


def test_thresholds_are_folded_with_the_scale() -> None:
    dictionary = directions(torch.linspace(0.01, 0.9, 30))
    folded = dictionary.fold_scale(4.0)
    torch.testing.assert_close(folded.encode(vectors() / 4).dense() * 4, dictionary.encode(vectors()).dense())


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(DictionaryError, match="1 rows"):
        Thresholded.neurons(vectors(1), torch.rand(4))
    with pytest.raises(DictionaryError, match="3 firing rates"):
        directions(torch.rand(5)).set_rates(vectors(), torch.rand(3))
