"""Archetypal dictionaries: the gradient that is handed on, the bounds, and where directions come from."""

import pytest
import torch
from torch import Tensor

from sae.dictionaries.archetypal import Archetypal, ArchetypalConfig
from sae.errors import ConfigError, DictionaryError

D_IN, D_SAE, N_POINTS = 12, 40, 16
NONE = torch.zeros(D_SAE, dtype=torch.bool)


def dictionary(d_out: int | None = None, **settings: float) -> Archetypal:
    config = ArchetypalConfig(**({"d_sae": D_SAE, "k": 4, "n_points": N_POINTS} | settings))  # type: ignore[arg-type]
    result = Archetypal(config, D_IN, d_out)
    result.initialise(batch(256), torch.Generator().manual_seed(0), None if d_out is None else batch(256, d_out))
    return result


def batch(n: int = 64, width: int = D_IN) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(width)) + 0.5


def directions(one: Archetypal) -> Tensor:
    """The equation of the module docstring."""
    made = one.mixture @ one.points + one.relaxation
    return made / made.norm(dim=1, keepdim=True)


def step(one: Archetypal, lr: float = 0.05) -> None:
    learned = [parameter for parameter in one.parameters() if parameter.requires_grad]
    one.loss(batch(), NONE).total.backward()
    one.after_backward()
    torch.optim.Adam(learned, lr=lr).step()
    one.after_step()


def test_gradients_are_those_through_the_mixture() -> None:
    one, x = dictionary(), batch()
    with torch.no_grad():
        one.relaxation.copy_(0.1 * torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(3)))
    one.after_step()
    one.loss(x, torch.arange(D_SAE) < 8).total.backward()
    one.after_backward()
    assert one.W_dec.grad is None
    found = {name: parameter.grad for name, parameter in one.named_parameters() if name != "W_dec"}

    class Dense(Archetypal):
        W_dec = property(directions)

    dense = dictionary()
    dense.load_state_dict(one.state_dict())
    del dense._parameters["W_dec"]
    dense.__class__ = Dense
    dense.loss(x, torch.arange(D_SAE) < 8).total.backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, dense.get_parameter(name).grad, rtol=1e-4, atol=1e-6)


def test_after_every_step_directions_are_put_together_within_their_bounds() -> None:
    one = dictionary(delta=0.3)
    for _ in range(5):
        step(one, lr=0.2)
        torch.testing.assert_close(one.W_dec.detach(), directions(one).detach())
        assert (one.relaxation.norm(dim=1) <= 0.3 * (1 + 1e-5)).all()
    assert (one.relaxation.norm(dim=1) > 0.299).any(), "the bound is felt"


def test_without_relaxation_directions_stay_in_the_cone_of_the_points() -> None:
    one = dictionary(delta=0)
    before = one.mixture.detach()
    for _ in range(5):
        step(one)
    assert not one.relaxation.any() and (one.mixture - before).abs().max() > 0.1
    torch.testing.assert_close(one.mixture.sum(1), torch.ones(D_SAE))
    torch.testing.assert_close(one.W_dec * one.lengths[:, None], one.mixture @ one.points)


def test_every_point_starts_a_latent_and_no_two_start_alike() -> None:
    one = dictionary()
    assert set(one.mixture.argmax(1).tolist()) == set(range(N_POINTS))
    torch.testing.assert_close(one.points.norm(dim=1).mean(), torch.ones(()))
    assert len(one.mixture.unique(dim=0)) == D_SAE


def test_the_encoder_starts_along_the_decoder_as_long_as_rebuilds_vectors_at_their_length() -> None:
    one, x = dictionary(), batch(256)
    torch.testing.assert_close(one.W_enc_rows, one.W_enc_rows.norm(dim=1, keepdim=True) * one.W_dec)
    rebuilt = (one(x) - one.b_dec).detach()
    torch.testing.assert_close(((x - one.b_dec) * rebuilt).sum(), rebuilt.square().sum())


def test_a_transcoder_mixes_what_it_writes() -> None:
    one = dictionary(d_out=9)
    assert one.points.shape == (N_POINTS, 9) and one.W_dec.shape == (D_SAE, 9)
    torch.testing.assert_close(one.W_dec.norm(dim=1), torch.ones(D_SAE))


def test_too_few_vectors_and_impossible_settings_are_refused() -> None:
    with pytest.raises(DictionaryError, match="300 centres of 256 vectors"):
        dictionary(n_points=300)
    with pytest.raises(ConfigError, match="n_points: 0"):
        ArchetypalConfig(d_sae=D_SAE, n_points=0)
    with pytest.raises(ConfigError, match="delta: -1"):
        ArchetypalConfig(d_sae=D_SAE, delta=-1.0)
