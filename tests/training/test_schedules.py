import pytest

from sae.errors import ConfigError
from sae.training.schedules import ScheduleConfig, lr_factor


def test_rises_stays_and_falls() -> None:
    config = ScheduleConfig(warmup_fraction=0.4, decay_fraction=0.2)
    factors = [lr_factor(config, step, 10) for step in range(10)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 0.5])


def test_without_warmup_and_decay_it_is_constant() -> None:
    config = ScheduleConfig(warmup_fraction=0.0, decay_fraction=0.0)
    assert {lr_factor(config, step, 7) for step in range(7)} == {1.0}


@pytest.mark.parametrize("n_steps", [1, 2, 3, 1000])
def test_every_step_learns(n_steps: int) -> None:
    factors = [lr_factor(ScheduleConfig(), step, n_steps) for step in range(n_steps)]
    assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.parametrize(("warmup", "decay"), [(-0.1, 0.2), (0.2, -0.1), (0.6, 0.6)])
def test_impossible_shares_are_refused(warmup: float, decay: float) -> None:
    with pytest.raises(ConfigError, match="together at most 1"):
        ScheduleConfig(warmup_fraction=warmup, decay_fraction=decay)
