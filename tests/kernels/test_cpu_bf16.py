"""Candidates in bf16: exact values, and almost always the exact choice."""

import pytest
import torch
from torch import Tensor

from sae.kernels import cpu, cpu_bf16, interface

D_IN, D_SAE, BATCH, K = 128, 2048, 256, 16


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=generator), dim=1)
    return torch.randn(BATCH, D_IN, generator=generator), weight, 0.1 * torch.randn(D_SAE, generator=generator)


def members(indices: Tensor) -> Tensor:
    return torch.zeros(len(indices), D_SAE, dtype=torch.bool).scatter_(1, indices.long(), True)


def test_almost_every_latent_is_the_exact_one() -> None:
    agreed = []
    for seed in range(4):
        x, weight, bias = problem(seed)
        exact = members(cpu.select_topk(x, weight, bias, K, None, 0)[1])
        found = members(cpu_bf16.select_topk(x, weight, bias, K, None, 0)[1])
        agreed.append((exact & found).sum() / exact.sum())
    assert torch.stack(agreed).mean() > 0.999


def test_values_are_those_of_float32() -> None:
    x, weight, bias = problem()
    values, indices = cpu_bf16.select_topk(x, weight, bias, K, None, 0)
    torch.testing.assert_close(values, (x @ weight.T + bias).gather(1, indices.long()), rtol=1e-5, atol=1e-5)


def test_the_dead_are_selected_exactly() -> None:
    x, weight, bias = problem()
    dead = torch.arange(D_SAE) % 5 == 0
    ours = cpu_bf16.select_topk(x, weight, bias, K, dead, 32)[1][:, K:]
    assert torch.equal(members(ours), members(cpu.select_topk(x, weight, bias, K, dead, 32)[1][:, K:]))


@pytest.mark.parametrize("share", [0.0, 0.85, 1.2])
def test_a_batch_selection_does_not_depend_on_its_floor(share: float) -> None:
    x, weight, bias = problem()
    n = K * BATCH
    exact = cpu.select_batch_topk(x, weight, bias, n, torch.zeros(()))
    smallest = exact[2].min()
    offsets, indices, values = cpu_bf16.select_batch_topk(x, weight, bias, n, share * smallest)
    assert len(values) == n
    assert abs(values.min() - smallest) < 1e-3
    same = torch.isin(
        indices + D_SAE * cpu._rows(offsets, indices).long(), exact[1] + D_SAE * cpu._rows(exact[0], exact[1]).long()
    )
    assert same.float().mean() > 0.999


def test_the_choice_is_made_by_context(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.zeros(1)
    monkeypatch.setattr(interface, "HAS_BF16", True)
    with interface.candidates("bf16"):
        assert interface.backend_of(weight) is cpu_bf16
        assert interface.backend_of(weight.double()) is cpu
    assert interface.backend_of(weight) is cpu
    monkeypatch.setattr(interface, "HAS_BF16", False)
    with interface.candidates("bf16"):
        assert interface.backend_of(weight) is cpu
