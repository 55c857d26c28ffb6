"""TopK's loss and gradients against the equations written densely."""

import pytest
import torch
from torch import Tensor

from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import ConfigError

D_IN, D_SAE, K, K_AUX = 12, 40, 4, 6


def dictionary(**settings: float) -> TopK:
    result = TopK(TopKConfig(d_sae=D_SAE, **({"k": K, "k_aux": K_AUX} | settings)), D_IN)
    generator = torch.Generator().manual_seed(0)
    result.initialise(batch(256), generator)
    with torch.no_grad():
        result.W_enc_rows.add_(0.3 * torch.randn(D_SAE, D_IN, generator=generator))
        result.b_enc.add_(0.3 * torch.randn(D_SAE, generator=generator))
    return result


def batch(n: int = 64) -> Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(1)) + 0.5


def dense_loss(topk: TopK, x: Tensor, dead: Tensor) -> tuple[Tensor, Tensor]:
    """The equations of the module docstring, with every tensor [batch, d_sae]."""
    pre = (x - topk.b_dec) @ topk.W_enc + topk.b_enc
    codes = (pre * torch.zeros_like(pre).scatter(1, pre.topk(K).indices, 1.0)).relu()
    error = x - codes @ topk.W_dec - topk.b_dec
    residual = error.detach()
    best = pre.masked_fill(~dead, -torch.inf).topk(K_AUX).indices
    aux = (pre * torch.zeros_like(pre).scatter(1, best, 1.0) * dead).relu() @ topk.W_dec
    variance = (residual - residual.mean(0)).square().sum(1).mean()
    auxk = (aux - residual).square().sum(1).mean() / variance if dead.any() else torch.zeros(())
    return error.square().sum(1).mean() / topk.variance, auxk


def gradients(topk: TopK, total: Tensor) -> dict[str, Tensor]:
    topk.zero_grad()
    total.backward()
    return {name: parameter.grad for name, parameter in topk.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("n_dead", [0, 3, 10, D_SAE])
def test_loss_and_gradients_equal_the_dense_equations(n_dead: int) -> None:
    topk, x, dead = dictionary(), batch(), torch.arange(D_SAE) < n_dead
    loss = topk.loss(x, dead)
    mse, auxk = dense_loss(topk, x, dead)
    torch.testing.assert_close(loss.parts["mse"], mse.detach())
    torch.testing.assert_close(loss.parts["auxk"], auxk.detach())
    ours, dense = gradients(topk, loss.total), gradients(topk, mse + auxk / 32)
    assert ours.keys() == dense.keys() == {"W_enc_rows", "b_enc", "W_dec", "b_dec"}
    for name in ours:
        torch.testing.assert_close(ours[name], dense[name], rtol=1e-4, atol=1e-6)


def test_the_auxiliary_loss_reaches_the_encoder_of_dead_latents_alone() -> None:
    topk, x = dictionary(), batch()
    dead = topk.loss(x, torch.zeros(D_SAE, dtype=torch.bool)).codes.n_fired() == 0
    dead[:8] = True
    with_aux = gradients(topk, topk.loss(x, dead).total)["W_enc_rows"]
    without = gradients(topk, topk.loss(x, torch.zeros_like(dead)).total)["W_enc_rows"]
    change = (with_aux - without).norm(dim=1)
    assert change[dead].max() > 1e-4
    assert change[~dead].max() < 1e-7


def test_the_auxiliary_loss_can_be_switched_off() -> None:
    topk, dead = dictionary(auxk_coefficient=0), torch.ones(D_SAE, dtype=torch.bool)
    loss = topk.loss(batch(), dead)
    assert loss.parts["auxk"] == 0 and loss.total == loss.parts["mse"]


def test_predicting_the_mean_costs_one() -> None:
    topk, x = dictionary(), batch(256)
    with torch.no_grad():
        topk.W_dec.zero_()
        topk.b_dec.copy_(x.mean(0))
    loss = topk.loss(x, torch.zeros(D_SAE, dtype=torch.bool))
    assert loss.total.item() == pytest.approx(1, abs=1e-5)


def test_a_batch_costs_the_mean_of_its_shards() -> None:
    topk, x, none = dictionary(), batch(), torch.zeros(D_SAE, dtype=torch.bool)
    shards = [topk.loss(shard, none).total for shard in x.chunk(4)]
    torch.testing.assert_close(topk.loss(x, none).total, torch.stack(shards).mean())


def test_a_perfect_reconstruction_does_not_blow_up() -> None:
    topk, dead = dictionary(), torch.ones(D_SAE, dtype=torch.bool)
    loss = topk.loss(topk.b_dec.detach().expand(8, -1), dead)
    loss.total.backward()
    assert loss.total.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in topk.parameters())


def test_codes_are_rectified() -> None:
    topk = dictionary(k=D_SAE)
    codes = topk.encode(batch())
    assert (codes.values >= 0).all() and (codes.l0() < D_SAE).all()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"d_sae": 0}, "d_sae"),
        ({"d_sae": 8, "k": 0}, "k: 0"),
        ({"d_sae": 8, "k": 9}, "1 to 8"),
        ({"d_sae": 8, "k": 1, "auxk_coefficient": -1.0}, "auxk_coefficient"),
        ({"d_sae": 8, "k": 1, "auxk_coefficient": float("nan")}, "auxk_coefficient"),
        ({"d_sae": 8, "k": 1, "k_aux": 9}, "k_aux"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        TopKConfig(**settings)  # type: ignore[arg-type]
