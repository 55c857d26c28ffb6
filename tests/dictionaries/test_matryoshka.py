"""Matryoshka's loss and gradients against the equations written densely, one prefix at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sae.dictionaries.batch_topk import BatchTopK
from sae.dictionaries.codes import Codes
from sae.dictionaries.matryoshka import Matryoshka, MatryoshkaConfig, nested_decode
from sae.errors import ConfigError
from sae.evaluation.toys import Toy, hierarchical
from sae.tensors import Vectors

D_IN, D_SAE, K, K_AUX = 12, 40, 4, 6


def dictionary(d_out: int | None = None, **settings: object) -> Matryoshka:
    config = MatryoshkaConfig(**({"d_sae": D_SAE, "k": K, "k_aux": K_AUX} | settings))  # type: ignore[arg-type]
    result = Matryoshka(config, D_IN, d_out)
    generator = torch.Generator().manual_seed(0)
    result.initialise(batch(256), generator, None if d_out is None else batch(256, d_out))
    with torch.no_grad():
        result.W_enc_rows.add_(0.3 * torch.randn(D_SAE, D_IN, generator=generator))
        result.b_enc.add_(0.3 * torch.randn(D_SAE, generator=generator))
    return result


def batch(n: int = 64, width: int = D_IN) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(width)) + 0.5


def dense_loss(one: Matryoshka, x: Vectors, target: Tensor, dead: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """The equations of the module docstring, with every tensor [batch, d_sae]."""
    pre = (x - one.centre) @ one.W_enc + one.b_enc
    n_kept = K * len(x)
    kept = torch.zeros_like(pre).view(-1).scatter(0, pre.view(-1).topk(n_kept).indices, 1.0).view_as(pre)
    codes = (pre * kept).relu()
    constant = one.b_dec if one.W_skip is None else one.b_dec + x @ one.W_skip
    errors = [target - codes[:, :m] @ one.W_dec[:m] - constant for m in lengths]
    residual = errors[-1].detach()
    best = pre.masked_fill(~dead, -torch.inf).topk(K_AUX).indices
    aux = (pre * torch.zeros_like(pre).scatter(1, best, 1.0) * dead).relu() @ one.W_dec
    variance = (residual - residual.mean(0)).square().sum(1).mean()
    auxk = (aux - residual).square().sum(1).mean() / variance if dead.any() else torch.zeros(())
    nested = torch.stack([error.square().sum(1).mean() for error in errors]).mean() / one.variance
    return nested, auxk


def gradients(one: Matryoshka, total: Tensor) -> dict[str, Tensor]:
    one.zero_grad()
    total.backward()
    return {name: parameter.grad for name, parameter in one.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("n_dead", [0, 10])
@pytest.mark.parametrize("transcoder", [False, True])
def test_loss_and_gradients_equal_the_dense_equations(n_dead: int, transcoder: bool) -> None:
    one = dictionary(d_out=9, skip=True) if transcoder else dictionary()
    x, dead = batch(), torch.arange(D_SAE) < n_dead
    target = batch(len(x), 9) if transcoder else x
    loss = one.loss(x, dead, target if transcoder else None)
    nested, auxk = dense_loss(one, x, target, dead, [2, 5, 10, 20, 40])
    torch.testing.assert_close(loss.parts["nested"], nested.detach())
    torch.testing.assert_close(loss.parts["auxk"], auxk.detach())
    ours, dense = gradients(one, loss.total), gradients(one, nested + auxk / 32)
    assert ours.keys() == dense.keys() == {name for name, _ in one.named_parameters()}
    for name in ours:
        torch.testing.assert_close(ours[name], dense[name], rtol=1e-4, atol=1e-6)


def test_one_prefix_is_batch_topk() -> None:
    one, x, none = dictionary(prefixes=(1.0,)), batch(), torch.zeros(D_SAE, dtype=torch.bool)
    loss = one.loss(x, none)
    torch.testing.assert_close(loss.parts["nested"], one.normalised_error(x, loss.x_hat).detach())
    torch.testing.assert_close(loss.x_hat, one.decode(loss.codes))


@given(st.lists(st.integers(1, 30), max_size=6), st.integers(0, 2**31))
def test_a_prefix_decodes_what_its_latents_alone_would(lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(7, 30, generator=generator) * (torch.rand(7, 30, generator=generator) < 0.2)
    W_dec, rising = torch.randn(30, 5, generator=generator), [*sorted(lengths), 30]
    found = nested_decode(Codes.from_dense(dense), torch.tensor(rising), W_dec)
    expected = torch.stack([dense[:, :m] @ W_dec[:m] for m in rising])
    torch.testing.assert_close(found, expected)


def trained(kind: type[BatchTopK], toy: Toy, **settings: object) -> BatchTopK:
    generator = torch.Generator().manual_seed(0)
    config = kind.config_type(d_sae=len(toy.directions), k=3, **settings)  # type: ignore[call-arg, arg-type]
    one = kind(config, toy.directions.shape[1])  # type: ignore[arg-type]
    one.initialise(toy.sample(2048, generator)[0], generator)
    optimiser = torch.optim.Adam([p for p in one.parameters() if p.requires_grad], lr=1e-2, fused=True)
    for _ in range(400):
        optimiser.zero_grad()
        one.loss(toy.sample(256, generator)[0], torch.zeros(one.d_sae, dtype=torch.bool)).total.backward()
        one.after_backward()
        optimiser.step()
        one.after_step()
    return one


def test_the_first_latents_stand_for_what_is_general() -> None:
    """Eight parents, each with three children that fire only where it does: the parents go first."""
    toy = hierarchical(8, 3, 1, 40)
    found = {}
    for kind, settings in ((BatchTopK, {}), (Matryoshka, {"prefixes": (0.25, 1.0)})):
        first = trained(kind, toy, **settings).W_dec.detach()[:8]
        found[kind] = (toy.directions[:8] @ first.T).amax(1).mean()
    assert found[Matryoshka] > 0.75 and found[BatchTopK] < 0.6


class TestRandomPrefixes:
    def test_they_follow_the_pareto_distribution_cut_off_at_the_size(self) -> None:
        torch.manual_seed(0)
        one = Matryoshka(MatryoshkaConfig(d_sae=1000, n_random_prefixes=20_001), D_IN)
        drawn = one.draw_lengths()
        assert len(drawn) == 20_001 and drawn[-1] == 1000 and (drawn.diff() >= 0).all() and drawn[0] == 1
        for length in (2, 10, 100, 900):
            beyond = float((drawn[:-1] >= length).double().mean())
            expected = 1 - (1 - length**-0.5) / (1 - 1000**-0.5)
            assert beyond == pytest.approx(expected, abs=0.015), length

    def test_every_batch_has_its_own_and_the_seed_decides_them(self) -> None:
        one, x, none = dictionary(n_random_prefixes=4), batch(), torch.zeros(D_SAE, dtype=torch.bool)
        losses = []
        for _ in range(2):
            torch.manual_seed(5)
            losses.append([one.loss(x, none).total.item() for _ in range(3)])
        assert losses[0] == losses[1] and len(set(losses[0])) == 3

    def test_loss_equals_that_of_the_same_prefixes_fixed(self) -> None:
        one, x, none = dictionary(n_random_prefixes=3), batch(), torch.zeros(D_SAE, dtype=torch.bool)
        torch.manual_seed(5)
        lengths = one.draw_lengths().tolist()
        torch.manual_seed(5)
        loss = one.loss(x, none)
        torch.testing.assert_close(loss.parts["nested"], dense_loss(one, x, x, none, lengths)[0].detach())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"prefixes": ()}, "prefixes"),
        ({"prefixes": (0.5,)}, "rise from one latent or more to 1"),
        ({"prefixes": (0.5, 0.25, 1.0)}, "rise from one"),
        ({"prefixes": (0.001, 1.0)}, "of 40 latents"),
        ({"prefixes": (0.5, 0.505, 1.0)}, "rise from one"),
        ({"prefixes": (float("nan"), 1.0)}, "prefixes"),
        ({"n_random_prefixes": 0}, "n_random_prefixes"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        MatryoshkaConfig(**({"d_sae": D_SAE, "k": K} | settings))  # type: ignore[arg-type]
