"""Matching pursuit's loss and gradients against a pursuit written step by step, with every tensor [batch, d_sae]."""

import pytest
import torch
from torch import Tensor

from sae.dictionaries.matching_pursuit import MatchingPursuit, MatchingPursuitConfig, merged
from sae.errors import ConfigError, DictionaryError
from sae.tensors import Vectors

D_IN, D_SAE, K, K_AUX = 12, 40, 6, 3


def dictionary(**settings: float) -> MatchingPursuit:
    result = MatchingPursuit(MatchingPursuitConfig(d_sae=D_SAE, **({"k": K, "k_aux": K_AUX} | settings)), D_IN)
    result.initialise(batch(256), torch.Generator().manual_seed(0))
    return result


def batch(n: int = 64) -> Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(1)) + 0.5


def dense_pursuit(x: Vectors, W_dec: Tensor, k: int, allowed: Tensor | None = None) -> Tensor:
    codes, residual = x.new_zeros(len(x), len(W_dec)), x
    for _ in range(k):
        pre = residual @ W_dec.T
        best = (pre if allowed is None else pre.masked_fill(~allowed, -torch.inf)).argmax(1)
        step = (pre * torch.nn.functional.one_hot(best, len(W_dec))).relu()
        codes, residual = codes + step, residual - step @ W_dec
    return codes


@pytest.mark.parametrize("n_dead", [0, 1, 10])
def test_loss_and_gradients_equal_the_dense_equations(n_dead: int) -> None:
    one, x, dead = dictionary(), batch(), torch.arange(D_SAE) < n_dead
    loss = one.loss(x, dead)
    ours = torch.autograd.grad(loss.total, [one.W_dec, one.b_dec])
    error = x - one.b_dec - dense_pursuit(x - one.b_dec, one.W_dec, K) @ one.W_dec
    mse, residual = error.square().sum(1).mean() / one.variance, error.detach()
    auxk = torch.zeros(())
    if n_dead:
        taken = dense_pursuit(residual, one.W_dec, K_AUX, dead) @ one.W_dec
        auxk = (taken - residual).square().sum(1).mean() / (residual - residual.mean(0)).square().sum(1).mean()
    torch.testing.assert_close(loss.parts["mse"], mse.detach())
    torch.testing.assert_close(loss.parts["auxk"], auxk.detach())
    for found, expected in zip(ours, torch.autograd.grad(mse + auxk / 32, [one.W_dec, one.b_dec]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_codes_are_those_of_the_pursuit_each_latent_once() -> None:
    one, x = dictionary(k=30), batch(200)
    codes = one.encode(x)
    torch.testing.assert_close(codes.dense(), dense_pursuit(x - one.b_dec, one.W_dec, 30), rtol=1e-4, atol=1e-5)
    entries = codes.rows * D_SAE + codes.indices
    assert len(entries.unique()) == len(entries) and (codes.values > 0).all()
    assert codes.l0().min() < 30, "somewhere a latent was chosen again"


def test_merging_adds_up_and_leaves_out_what_is_zero() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 0.0], [0.0, 0.0, 0.0]])
    codes = merged(values, torch.tensor([[3, 1, 3], [0, 2, 1], [0, 0, 0]], dtype=torch.int32), 4)
    assert codes.offsets.tolist() == [0, 2, 4, 4]
    assert codes.indices.tolist() == [3, 1, 0, 2] and codes.values.tolist() == [5, 2, 8, 16]


def test_the_encoder_reads_along_the_decoder_after_every_step() -> None:
    one = dictionary()
    assert torch.equal(one.W_enc_rows, one.W_dec)
    one.loss(batch(), torch.zeros(D_SAE, dtype=torch.bool)).total.backward()
    torch.optim.Adam([one.W_dec], lr=0.1).step()
    assert not torch.equal(one.W_enc_rows, one.W_dec)
    one.after_step()
    assert torch.equal(one.W_enc_rows, one.W_dec)


def test_one_step_of_the_auxiliary_loss_unless_told_otherwise() -> None:
    assert MatchingPursuitConfig(d_sae=64).n_revived(512) == 1
    loss = dictionary(auxk_coefficient=0).loss(batch(), torch.ones(D_SAE, dtype=torch.bool))
    assert loss.parts["auxk"] == 0 and loss.total == loss.parts["mse"]


def test_a_transcoder_is_refused() -> None:
    with pytest.raises(DictionaryError, match="matching_pursuit: rebuilds what it reads"):
        MatchingPursuit(MatchingPursuitConfig(d_sae=64), D_IN, D_IN)
    with pytest.raises(ConfigError, match="k: 0"):
        MatchingPursuitConfig(d_sae=64, k=0)
