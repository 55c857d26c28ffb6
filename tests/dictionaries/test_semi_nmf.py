import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

from sae.dictionaries import semi_nmf
from sae.dictionaries.semi_nmf import SemiNmf, SemiNmfConfig
from sae.errors import ConfigError, DictionaryError

D_IN = 10


def vectors(n: int = 600) -> Tensor:
    """Non-negative mixtures of a few directions of any sign."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(n, 6, generator=generator) * (torch.rand(n, 6, generator=generator) < 0.4)
    return weights @ torch.randn(6, D_IN, generator=generator) + 1


def fitted(d_sae: int = 6, n_updates: int = 50) -> SemiNmf:
    result = SemiNmf(SemiNmfConfig(d_sae=d_sae, n_updates=n_updates), D_IN)
    result.initialise(vectors(), torch.Generator().manual_seed(0))
    return result


def fvu(one: SemiNmf, x: Tensor) -> float:
    return float((one(x) - x).square().sum() / (x - x.mean(0)).square().sum())


@pytest.mark.parametrize("d_sae", [4, 6, 25])
def test_codes_are_the_least_squares_codes_that_are_not_negative(d_sae: int) -> None:
    one, x = fitted(d_sae, n_updates=3000), vectors()[:20]
    codes = one.encode(x).dense()
    assert (codes >= 0).all()
    for row, ours in zip(x, codes, strict=True):
        _, residual = nnls(one.W_dec.T.double().numpy(), (row - one.b_dec).double().numpy())
        error = float(((row - one.b_dec) - ours @ one.W_dec).norm())
        assert error == pytest.approx(residual, abs=0.02)


def test_fifty_updates_are_nearly_enough() -> None:
    one, x = fitted(), vectors()
    more = SemiNmf(SemiNmfConfig(d_sae=6, n_updates=3000), D_IN)
    more.load_state_dict(one.state_dict())
    assert fvu(one, x) < fvu(more, x) + 0.01


def test_fitting_lowers_the_error_and_more_latents_lower_it_further(monkeypatch: pytest.MonkeyPatch) -> None:
    x = vectors()
    errors = [fvu(fitted(d_sae), x) for d_sae in (2, 4, 6, 12)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.05
    monkeypatch.setattr(semi_nmf, "N_ROUNDS", 1)
    assert fvu(fitted(), x) > errors[2]


def test_a_bias_below_zero_is_a_penalty_on_the_sum_of_the_codes() -> None:
    one, x = fitted(12), vectors()
    before = one.encode(x).l0().float().mean()
    one.b_enc.fill_(-0.2)
    assert one.encode(x).l0().float().mean() < before


def test_transcoders_small_samples_and_no_updates_are_refused() -> None:
    with pytest.raises(DictionaryError, match="semi_nmf: rebuilds what it reads"):
        SemiNmf(SemiNmfConfig(d_sae=4), D_IN, D_IN)
    with pytest.raises(DictionaryError, match="700 centres of 600 vectors"):
        fitted(700)
    with pytest.raises(ConfigError, match="n_updates: 0"):
        SemiNmfConfig(d_sae=4, n_updates=0)
