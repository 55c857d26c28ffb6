"""ReLU, Gated and JumpReLU: losses and gradients against the equations written densely; the control of L0."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sae.dictionaries import registry
from sae.dictionaries.base import weighted_sum
from sae.dictionaries.gated import Gated
from sae.dictionaries.jumprelu import JumpReLU
from sae.dictionaries.relu import ReLU
from sae.dictionaries.sparsity import WithSparsity
from sae.errors import ConfigError

D_IN, D_SAE = 12, 40
NONE = torch.zeros(D_SAE, dtype=torch.bool)


def batch(n: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed)) + 0.5


def dictionary(kind: str, **settings: Any) -> Any:
    settings = {"kind": kind, "d_sae": D_SAE, "target_l0": None, "coefficient": 0.2} | settings
    made = registry.make_dictionary(registry.decode_config(settings), D_IN)
    generator = torch.Generator().manual_seed(0)
    made.initialise(batch(256), generator)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name not in ("W_dec", "threshold"):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return made


def gradients(made: torch.nn.Module, total: Tensor) -> dict[str, Tensor]:
    made.zero_grad()
    total.backward()
    return {name: parameter.grad for name, parameter in made.named_parameters() if parameter.grad is not None}


def compare(made: Any, dense_total: Any) -> None:
    ours = gradients(made, made.loss(batch(), NONE).total)
    total = made.loss(batch(), NONE).total
    dense = dense_total(made, batch())
    torch.testing.assert_close(total, dense)
    theirs = gradients(made, dense)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6)
        assert ours[name].any(), name


def error(made: Any, x: Tensor, x_hat: Tensor) -> Tensor:
    return (x - x_hat).square().sum(1).mean() / made.variance


@pytest.mark.parametrize("penalty", ["l1", "tanh", "lp"])
def test_relu_equals_the_dense_equations(penalty: str) -> None:
    def dense(made: ReLU, x: Tensor) -> Tensor:
        codes = ((x - made.b_dec) @ made.W_enc + made.b_enc).relu()
        u = codes / made.variance.sqrt()
        value = {
            "l1": u.sum(1).mean(),
            "tanh": (20 * u).tanh().sum(1).mean(),
            "lp": ((u + 1e-3) ** made.power - 1e-3**made.power)[u > 0].sum() / len(x),
        }[penalty]
        return error(made, x, codes @ made.W_dec + made.b_dec) + made.coefficient * value

    made = dictionary("relu", penalty=penalty, warmup_fraction=0.0)
    made.schedule(0.5)
    made.loss(batch(), NONE)
    assert float(made.power) == pytest.approx(0.52 if penalty == "lp" else 1)
    compare(made, dense)


def test_annealing_the_power_keeps_the_strength_of_the_penalty() -> None:
    made = dictionary("relu", penalty="lp")
    codes = made.select(batch())
    before = float(made.coefficient * made.penalty(codes))
    made.schedule(0.7)
    assert float(made.coefficient * made.penalty(codes)) == pytest.approx(before, rel=1e-5)
    assert float(made.power) < 1


def test_gated_equals_the_dense_equations() -> None:
    def dense(made: Gated, x: Tensor) -> Tensor:
        read = (x - made.b_dec) @ made.W_enc
        gate = (read + made.b_enc).relu()
        codes = (made.r_mag.exp() * read + made.b_mag).relu() * (gate > 0)
        rebuilt = gate @ made.W_dec.detach() + made.b_dec.detach()
        penalty = gate.sum(1).mean() / made.variance.sqrt()
        return error(made, x, codes @ made.W_dec + made.b_dec) + error(made, x, rebuilt) + made.coefficient * penalty

    made = dictionary("gated")
    compare(made, dense)
    detached = gradients(made, made.loss(batch(), NONE).total)["W_dec"]
    x, codes = batch(), made.gated(batch())[1]
    alone = gradients(made, error(made, x, codes.dense() @ made.W_dec + made.b_dec))["W_dec"]
    torch.testing.assert_close(detached, alone, rtol=1e-4, atol=1e-6)


class Ramp(torch.autograd.Function):
    """A step, and what is behind it, with the gradients of the paper to the threshold."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(pre, threshold, width)
        return (pre > threshold) * pre, (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold, width = ctx.saved_tensors
        near = ((pre - threshold).abs() < width / 2) / width
        of_threshold = -(near * (threshold * grads[0] + grads[1])).sum(0)
        return grads[0] * (pre > threshold), of_threshold, None


@pytest.mark.parametrize("penalty", ["step", "tanh", "quadratic"])
def test_jumprelu_equals_the_dense_equations(penalty: str) -> None:
    def dense(made: JumpReLU, x: Tensor) -> Tensor:
        pre = (x - made.b_dec) @ made.W_enc + made.b_enc
        codes, steps = Ramp.apply(pre, made.threshold, made.config.bandwidth * made.variance.sqrt())
        l0 = steps.sum(1).mean()
        value = {
            "step": l0,
            "tanh": (20 * codes / made.variance.sqrt()).tanh().sum(1).mean(),
            "quadratic": (l0 / 6 - 1) ** 2,
        }[penalty]
        return error(made, x, codes @ made.W_dec + made.b_dec) + made.coefficient * value

    target = 6.0 if penalty == "quadratic" else None
    compare(dictionary("jumprelu", penalty=penalty, bandwidth=0.3, target_l0=target), dense)


@pytest.mark.parametrize("d_out", [None, 7])
def test_pre_activations_below_their_thresholds_equal_the_dense_equations(d_out: int | None) -> None:
    settings = {"kind": "jumprelu", "d_sae": D_SAE, "target_l0": None, "bandwidth": 0.3, "pre_act_coefficient": 0.02}
    made = registry.make_dictionary(registry.decode_config(settings), D_IN, d_out).double()
    x, target = batch().double(), None if d_out is None else batch(seed=2)[:, :7].double()
    # Thresholds start at pre-activations of the sample, where the gradient is a matter of convention.
    made.initialise(batch(seed=3).double(), torch.Generator().manual_seed(0), target)
    assert isinstance(made, JumpReLU)
    loss = made.loss(x, NONE, target)
    coefficient, ours = loss.terms["pre_act"]
    pre = (x - made.centre) @ made.W_enc + made.b_enc
    below = (made.threshold - pre).relu() * made.W_dec.norm(dim=1).detach()
    dense = below.sum(1).mean() / made.variance.sqrt()
    assert coefficient == 0.02 and 0 < int((below == 0).sum()) < below.numel()
    torch.testing.assert_close(ours, dense)
    found, expected = gradients(made, ours), gradients(made, dense)
    assert expected.keys() >= {"W_enc_rows", "b_enc", "threshold"}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-9)  # norms are 1 to within 1e-7
    others = weighted_sum({name: term for name, term in loss.terms.items() if name != "pre_act"})
    torch.testing.assert_close(loss.total - others, 0.02 * dense)


def test_the_term_is_left_out_unless_asked_for() -> None:
    assert "pre_act" not in dictionary("jumprelu").loss(batch(), NONE).terms


def test_it_brings_dead_latents_back() -> None:
    """A latent far below its threshold on every vector has no other gradient, the auxiliary loss apart."""
    fired = []
    for coefficient in (0.0, 1e-3):
        made = dictionary("jumprelu", pre_act_coefficient=coefficient, auxk_coefficient=0.0, coefficient=1e-4)
        with torch.no_grad():
            made.b_enc[:5] -= 10
        optimiser = torch.optim.Adam(made.parameters(), lr=3e-2)
        for step in range(600):
            optimiser.zero_grad()
            made.loss(batch(256, seed=step), NONE).total.backward()
            optimiser.step()
            made.after_step()
        fired.append(int((made.encode(batch(2000)).dense()[:, :5] != 0).any(0).sum()))
    assert fired == [0, 5]


def test_first_thresholds_lie_between_the_activations_that_occur() -> None:
    made = registry.make_dictionary(registry.decode_config({"kind": "jumprelu", "d_sae": D_SAE, "target_l0": 2}), D_IN)
    made.initialise(batch(256), torch.Generator().manual_seed(0))
    pre = (batch(256) - made.centre) @ made.W_enc
    n_above = (pre > made.threshold).sum(0)
    assert n_above.unique().tolist() == [round(256 * 4 * 2 / D_SAE)], (
        "every latent fires as often, four times the target"
    )
    assert (pre - made.threshold).abs().amin() > 1e-5, "rounding would decide"


def test_thresholds_stay_float32() -> None:
    made = dictionary("jumprelu")
    before = made.threshold.detach().clone()
    made.to(torch.bfloat16)
    assert made.W_dec.dtype == torch.bfloat16
    assert made.threshold.dtype == torch.float32 and torch.equal(made.threshold, before)


@pytest.mark.parametrize("kind", ["relu", "gated", "jumprelu"])
def test_the_coefficient_finds_the_l0_that_is_wanted(kind: str) -> None:
    default = registry.dictionary_type(kind).config_type(d_sae=D_SAE).coefficient  # type: ignore[attr-defined]
    made: WithSparsity = dictionary(kind, target_l0=6.0, coefficient=default)
    optimiser = torch.optim.Adam(made.parameters(), lr=3e-3)
    l0 = []
    for step in range(1200):
        made.schedule(step / 1200)
        loss = made.loss(batch(256, seed=step), NONE)
        optimiser.zero_grad()
        loss.total.backward()
        made.after_backward()
        optimiser.step()
        made.after_step()
        l0.append(float(loss.codes.l0().float().mean()))
    assert sum(l0[-100:]) / 100 == pytest.approx(6, rel=0.15)


def test_the_penalty_warms_up() -> None:
    made = dictionary("relu", warmup_fraction=0.5)
    codes, found = made.select(batch()), []
    for progress in (0.0, 0.25, 0.5, 0.9):
        made.schedule(progress)
        found.append(float(made.strength(codes)))
    assert found == pytest.approx([0, 0.1, 0.2, 0.2])


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        ("relu", {"coefficient": -1.0}, "coefficient"),
        ("relu", {"coefficient": 0.0, "target_l0": 3.0}, "coefficient"),
        ("relu", {"warmup_fraction": 2.0}, "warmup_fraction"),
        ("relu", {"target_l0": 0.0}, "target_l0"),
        ("relu", {"p_end": 0.0}, "p_end"),
        ("relu", {"tanh_scale": 0.0}, "tanh_scale"),
        ("jumprelu", {"bandwidth": 0.0}, "bandwidth"),
        ("jumprelu", {"pre_act_coefficient": -1.0}, "pre_act_coefficient"),
        ("jumprelu", {"penalty": "quadratic", "target_l0": None}, "target_l0"),
    ],
)
def test_impossible_settings_are_refused(kind: str, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        registry.decode_config({"kind": kind, "d_sae": D_SAE} | settings)
