import math

import pytest
import torch

from sae.training.monitor import DIVERGED_FVU, Monitor

CPU = torch.device("cpu")


def figures(loss: float, squared_error: float, n_fired: int = 0) -> dict[str, torch.Tensor]:
    values = {"loss": loss, "squared_error": squared_error, "n_fired": n_fired}
    return {name: torch.tensor(value) for name, value in values.items()}


def test_figures_are_means_and_fvu_and_l0_are_per_vector() -> None:
    monitor = Monitor(capacity=4, variance=2.0, device=CPU)
    monitor.add(figures(1.0, 40.0, 30), n_vectors=10)
    monitor.add(figures(3.0, 20.0, 60), n_vectors=20)
    monitor.close_interval(torch.tensor(0.25), {"lr": 0.1})
    reading = monitor.read(wait=False)
    assert reading.step == 2
    assert reading.bad_step is None
    assert reading.metrics == {"loss": 2.0, "fvu": 1.0, "l0": 3.0, "dead_fraction": 0.25, "lr": 0.1}


def test_an_interval_is_read_once_and_untouched_by_the_next() -> None:
    monitor = Monitor(capacity=2, variance=1.0, device=CPU)
    monitor.add(figures(1.0, 1.0), 1)
    monitor.close_interval(torch.tensor(0.0), {})
    monitor.add(figures(5.0, 5.0), 1)
    assert monitor.read(wait=True).metrics["loss"] == 1.0
    assert monitor.read(wait=True) is None
    monitor.close_interval(torch.tensor(0.0), {})
    assert monitor.read(wait=True).metrics["loss"] == 5.0


@pytest.mark.parametrize(
    "bad", [figures(math.nan, 1.0), figures(math.inf, 1.0), figures(1.0, math.nan), figures(1.0, 1.1 * DIVERGED_FVU)]
)
def test_the_first_bad_step_is_named(bad: dict[str, torch.Tensor]) -> None:
    monitor = Monitor(capacity=8, variance=1.0, device=CPU, step=100)
    for step in range(5):
        monitor.add(bad if step in (2, 4) else figures(1.0, 1.0), 1)
    monitor.close_interval(torch.tensor(0.0), {})
    assert monitor.read(wait=False).bad_step == 102
