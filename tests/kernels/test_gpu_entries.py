"""Selections of unknown size on GPUs, interpreted on the CPU: as the reference, but for room that fills up rows."""

import os

import pytest
import torch
from torch import Tensor

from sae.kernels import interface, reference

pytest.importorskip("triton")
from sae.kernels import gpu
from sae.kernels.gpu import entries

pytestmark = pytest.mark.skipif(
    os.environ["TRITON_INTERPRET"] != "1", reason="Triton compiles, so tensors lie elsewhere"
)

Entries = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "SMALLEST_ROOM", 8)
    monkeypatch.setattr(entries, "ROOM", entries.Room())


def problem(batch: int = 9, d_in: int = 6, d_sae: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, d_in), (d_sae, d_in), (d_sae,)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    return x, weight, bias


def dense(found: Entries, d_sae: int = 40) -> Tensor:
    offsets, indices, values = found
    return reference._dense(offsets, indices, values.clamp_min(0), d_sae)


@pytest.mark.parametrize("per_latent", [False, True])
def test_above_a_threshold(per_latent: bool) -> None:
    x, weight, bias = problem()
    threshold = torch.linspace(0, 2, 40) if per_latent else torch.tensor(0.7)
    expected = dense(reference.select_above(x, weight, bias, threshold))
    torch.testing.assert_close(dense(gpu.select_above(x, weight, bias, threshold)), expected)


def test_in_use_nothing_is_missed_however_many_fire() -> None:
    x, weight, bias = problem()
    everything = torch.tensor(-100.0)
    offsets, indices, values = gpu.select_above(x, weight, bias, everything)
    found = reference._dense(offsets, indices, values.where(values > -torch.inf, 0), 40)
    torch.testing.assert_close(found, x @ weight.T + bias)


def test_in_training_rows_keep_to_their_room() -> None:
    x, weight, bias = problem()
    offsets, _, values = gpu.select_above(x, weight.requires_grad_(), bias, torch.tensor(-100.0))
    assert (offsets.diff() == 8).all() and len(values) == 72


def test_room_grows_by_a_quarter_to_a_power_of_two() -> None:
    room = entries.Room()
    room.grow(100)
    assert room.entries == 128
    room.grow(103)
    assert room.entries == 128
    room.grow(128)
    assert room.entries == 256


@pytest.mark.parametrize("n", [1, 27, 45])
def test_the_largest_of_a_batch(n: int) -> None:
    x, weight, bias = problem()
    expected = dense(reference.select_batch_topk(x, weight, bias, n, torch.zeros(())))
    torch.testing.assert_close(dense(gpu.select_batch_topk(x, weight, bias, n, torch.zeros(()))), expected)


def test_the_furthest_from_zero() -> None:
    x, weight, bias = problem()
    dead = torch.arange(40) < 12
    values, indices = gpu.select_topk(x, weight, bias, 5, dead, 3, absolute=True)
    wanted, _ = reference.select_topk(x, weight, bias, 5, dead, 3, absolute=True)
    torch.testing.assert_close(values[:, :5].sort(1).values, wanted[:, :5].sort(1).values)
    torch.testing.assert_close(values[:, 5:].sort(1).values, wanted[:, 5:].sort(1).values)
    torch.testing.assert_close((x @ weight.T + bias).gather(1, indices.long()), values)


def test_gradients_through_rows_of_equal_room(monkeypatch: pytest.MonkeyPatch) -> None:
    grads = []
    for backend in (reference, gpu):
        monkeypatch.setitem(interface.BACKENDS, "cpu", backend)
        x, weight, bias = problem()
        weight.requires_grad_()
        bias.requires_grad_()
        offsets, indices, values = interface.encode_above(x, torch.zeros(6), weight, bias, torch.tensor(0.9))
        interface.decode(offsets, indices, values.relu(), weight).square().sum().backward()
        grads.append((weight.grad, bias.grad))
    torch.testing.assert_close(grads[0], grads[1])
