"""Definitions of fairness beside counting by hand."""

import pytest
import torch

from sae.lab.bias.fairness import DEFINITIONS, gaps


def test_every_definition_by_hand() -> None:
    truth = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0], dtype=torch.bool)
    made = torch.tensor([1, 1, 0, 1, 1, 0, 0, 1], dtype=torch.bool)
    probability = torch.tensor([0.9, 0.8, 0.4, 0.6, 0.7, 0.1, 0.2, 0.6])
    group = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
    found = gaps(truth, made, probability, group, 0)
    assert tuple(found) == tuple(DEFINITIONS)
    assert found["base rate"].value == pytest.approx(3 / 4 - 1 / 4)
    assert found["demographic parity"].value == pytest.approx(3 / 4 - 2 / 4)
    assert found["equal opportunity"].value == pytest.approx(2 / 3 - 1)
    assert found["equalised odds"].value == pytest.approx(1 - 1 / 3), "false positives differ more"
    assert found["predictive parity"].value == pytest.approx(2 / 3 - 1 / 2)
    assert found["calibration"].value == pytest.approx((2.7 / 4 - 3 / 4) - (1.6 / 4 - 1 / 4))


def test_a_perfect_judge_cannot_have_parity_where_base_rates_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    group = torch.rand(2000, generator=generator) < 0.5
    truth = torch.rand(2000, generator=generator) < torch.where(group, 0.6, 0.2)
    found = gaps(truth, truth, truth.float(), group, 0)
    assert found["demographic parity"].holds is False and found["base rate"].low < 0.4 < found["base rate"].high
    assert all(
        found[name].value == 0 for name in ("equal opportunity", "equalised odds", "predictive parity", "calibration")
    )
    assert found["equalised odds"].holds


def test_what_cannot_be_counted_is_not_known() -> None:
    group = torch.tensor([True, True, False, False])
    nothing = torch.zeros(4, dtype=torch.bool)
    found = gaps(nothing, nothing, torch.zeros(4), group, 0)
    assert found["equal opportunity"].holds is None and found["predictive parity"].holds is None
    assert found["demographic parity"].holds
