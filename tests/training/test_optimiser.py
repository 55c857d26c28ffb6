import pytest
import torch
from torch import nn

from sae.errors import ConfigError
from sae.training.optimiser import AdamConfig, clip_gradients, default_lr, make_optimiser


def parameter_with_gradient(values: list[float]) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values)
    return parameter


def test_the_default_rate_falls_with_the_root_of_the_size() -> None:
    assert default_lr(2**14) == pytest.approx(4e-4)
    assert default_lr(2**12) == pytest.approx(8e-4)


def test_one_step_equals_the_formula() -> None:
    parameter = parameter_with_gradient([0.5, -2.0])
    optimiser = make_optimiser([parameter], AdamConfig(betas=(0.9, 0.99), eps=1e-8))
    optimiser.param_groups[0]["lr"] = 0.1
    optimiser.step()
    # After one step both bias-corrected means are the gradient and its square.
    torch.testing.assert_close(parameter.data, torch.tensor([-0.1, 0.1]))
    assert optimiser.defaults["fused"]


def test_gradients_are_scaled_down_together() -> None:
    first, second = parameter_with_gradient([3.0]), parameter_with_gradient([4.0])
    assert clip_gradients([first, second], max_norm=1.0).item() == pytest.approx(5.0)
    assert (first.grad.item(), second.grad.item()) == pytest.approx((0.6, 0.8), abs=1e-5)


@pytest.mark.parametrize("max_norm", [None, 10.0])
def test_small_gradients_stay(max_norm: float | None) -> None:
    parameter = parameter_with_gradient([3.0, 4.0])
    clip_gradients([parameter], max_norm)
    assert parameter.grad.tolist() == [3.0, 4.0]


def test_other_strides_are_caught() -> None:
    parameter = nn.Parameter(torch.zeros(3, 2))
    parameter.grad = torch.zeros(2, 3).T
    with pytest.raises(AssertionError, match="strides"):
        clip_gradients([parameter], None)


@pytest.mark.parametrize("setting", [{"lr": 0.0}, {"betas": (1.0, 0.9)}, {"eps": 0.0}, {"max_grad_norm": -1.0}])
def test_impossible_settings_are_refused(setting: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        AdamConfig(**setting)
