"""Every backend against dense autograd: values, gradients, layout, edge cases."""

import importlib
import os

import pytest
import torch
from torch import Tensor

from sae.kernels import cpu, interface, reference


@pytest.fixture(params=["reference", "cpu", "gpu"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> interface.Backend:
    if request.param == "gpu":
        pytest.importorskip("triton")
        if os.environ["TRITON_INTERPRET"] != "1":
            pytest.skip("Triton compiles for the GPU here; test_gpu.py runs there")
    module = importlib.import_module(f"sae.kernels.{request.param}")
    monkeypatch.setitem(interface.BACKENDS, "cpu", module)
    return module


def interpreted(backend: interface.Backend) -> bool:
    """Triton's interpreter takes ten milliseconds per program."""
    return backend is not reference and backend is not cpu


def problem(batch: int, d_in: int, d_sae: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors in which no two pre-activations of a row are close enough to swap under a small perturbation."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"x": (batch, d_in), "centre": (d_in,), "weight": (d_sae, d_in), "bias": (d_sae,)}
    return {
        name: torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for name, shape in shapes.items()
    }


def ragged(d_sae: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows of 3, 0, 1 and d_sae entries."""
    generator = torch.Generator().manual_seed(1)
    latents = [torch.randperm(d_sae, generator=generator)[:n] for n in (3, 0, 1, d_sae)]
    offsets = torch.tensor([0, 3, 3, 4, 4 + d_sae])
    indices = torch.cat(latents).int()
    return offsets, indices, torch.randn(len(indices), generator=generator, dtype=dtype).requires_grad_()


def dense_topk(x: Tensor, centre: Tensor, weight: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    pre = (x - centre) @ weight.T + bias
    chosen = pre.topk(k, dim=1).indices
    return pre, torch.zeros_like(pre).scatter(1, chosen, 1.0)


def spread(values: Tensor, indices: Tensor, d_sae: int) -> Tensor:
    return values.new_zeros(len(values), d_sae).scatter_add(1, indices.long(), values)


def test_topk_selects_what_a_full_sort_selects(backend: interface.Backend) -> None:
    tensors = problem(13, 6, 20)
    values, indices = interface.encode_topk(**tensors, k=4)
    pre, mask = dense_topk(**tensors, k=4)
    assert indices.dtype == torch.int32
    torch.testing.assert_close(spread(values, indices, 20), pre * mask)


def test_auxiliary_columns_are_the_best_dead_latents(backend: interface.Backend) -> None:
    tensors, dead = problem(13, 6, 20), torch.arange(20) % 3 == 0
    values, indices = interface.encode_topk(**tensors, k=4, dead=dead, k_aux=5)
    pre, _ = dense_topk(**tensors, k=4)
    expected = pre[:, dead].sort(1, descending=True)
    got = values[:, 4:].sort(1, descending=True)
    torch.testing.assert_close(got.values, expected.values[:, :5])
    assert dead[indices[:, 4:].long()].all()


@pytest.mark.parametrize("n_dead", [0, 2])
def test_too_few_dead_latents_add_nothing_after_the_rectifier(backend: interface.Backend, n_dead: int) -> None:
    tensors, dead = problem(7, 6, 20), torch.arange(20) < n_dead
    values, indices = interface.encode_topk(**tensors, k=4, dead=dead, k_aux=5)
    revived = spread(values[:, 4:].relu(), indices[:, 4:], 20)
    pre, _ = dense_topk(**tensors, k=4)
    torch.testing.assert_close(revived, pre.relu() * dead)
    (revived.sum() + values[:, :4].sum()).backward()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in tensors.values())


def test_encode_gradients_against_finite_differences(backend: interface.Backend) -> None:
    tensors, dead = problem(5, 4, 9), torch.arange(9) % 2 == 0

    def values(x: Tensor, centre: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return interface.encode_topk(x, centre, weight, bias, 3, dead, 2)[0]

    assert torch.autograd.gradcheck(values, tuple(tensors.values()), fast_mode=interpreted(backend))


def test_decode_gradients_against_finite_differences(backend: interface.Backend) -> None:
    offsets, indices, values = ragged(9)
    weight = problem(1, 4, 9)["weight"]
    assert torch.autograd.gradcheck(
        lambda v, w: interface.decode(offsets, indices, v, w), (values, weight), fast_mode=interpreted(backend)
    )


def test_gather_and_its_gradient_against_plain_indexing(backend: interface.Backend) -> None:
    offsets, indices, weights = ragged(9)
    bias = problem(1, 4, 9)["bias"]
    got = interface.gather(bias, offsets, indices)
    assert torch.equal(got, bias[indices.long()])
    (got * weights).sum().backward()
    expected = torch.zeros_like(bias).index_add(0, indices.long(), weights.detach())
    torch.testing.assert_close(bias.grad, expected)
    assert torch.autograd.gradcheck(lambda b: interface.gather(b, offsets, indices) * weights, (bias,))


def test_gather_keeps_its_precision_under_autocast(backend: interface.Backend) -> None:
    offsets, indices, weights = ragged(200, torch.float32)
    bias = torch.zeros(200, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        (interface.gather(bias, offsets, indices) * weights.detach()).sum().backward()
    expected = torch.zeros(200).index_add(0, indices.long(), weights.detach())
    assert bias.grad.dtype == torch.float32
    torch.testing.assert_close(bias.grad, expected)


def test_a_latent_listed_twice_counts_twice(backend: interface.Backend) -> None:
    offsets, indices, values = torch.tensor([0, 3]), torch.tensor([2, 2, 0]).int(), torch.tensor([1.0, 10.0, 100.0])
    vectors = torch.tensor([[1.0, 2.0]])
    out = backend.accumulate(offsets, indices, values, vectors, 4)
    assert out.tolist() == [[100.0, 200.0], [0.0, 0.0], [11.0, 22.0], [0.0, 0.0]]
    assert backend.decode(offsets, indices, values, out).tolist() == [[10121.0, 20242.0]]


def test_gradients_equal_dense_autograd_in_float32(backend: interface.Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "BLOCK_ROWS", 16)  # several blocks, the last one partial
    d_sae, k, k_aux = 96, 5, 7
    dead = torch.arange(d_sae) % 4 == 0
    ours, theirs = problem(43, 24, d_sae, torch.float32), problem(43, 24, d_sae, torch.float32)
    decoder = torch.randn(d_sae, 24, generator=torch.Generator().manual_seed(2))
    target = torch.randn(2, 43, 24, generator=torch.Generator().manual_seed(3))

    values, indices = interface.encode_topk(**ours, k=k, dead=dead, k_aux=k_aux)
    our_decoder = decoder.clone().requires_grad_()
    error = 0
    for part, wanted in zip((slice(0, k), slice(k, None)), target, strict=True):
        width = indices[:, part].shape[1]
        offsets = torch.arange(44) * width
        entries = indices[:, part].reshape(-1), values[:, part].relu().reshape(-1)
        error = error + (interface.decode(offsets, *entries, our_decoder) - wanted).square().mean()
    error.backward()

    their_decoder = decoder.clone().requires_grad_()
    pre, mask = dense_topk(**theirs, k=k)
    best_dead = pre.masked_fill(~dead, -torch.inf).topk(k_aux).indices
    aux_mask = torch.zeros_like(pre).scatter(1, best_dead, 1.0)
    dense = [(pre * chosen).relu() @ their_decoder for chosen in (mask, aux_mask)]
    sum((got - wanted).square().mean() for got, wanted in zip(dense, target, strict=True)).backward()

    for name, tensor in ours.items():
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, theirs[name].grad, rtol=1e-4, atol=1e-5)
        assert tensor.grad.stride() == tensor.stride()
    torch.testing.assert_close(our_decoder.grad, their_decoder.grad, rtol=1e-4, atol=1e-5)


def test_same_inputs_give_the_same_bits(backend: interface.Backend) -> None:
    results = []
    for _ in range(2):
        tensors = problem(*((40, 8, 48) if interpreted(backend) else (200, 32, 256)), torch.float32)
        dead = torch.arange(len(tensors["weight"])) % 3 == 0
        values, indices = interface.encode_topk(**tensors, k=8, dead=dead, k_aux=16)
        values.square().sum().backward()
        results.append([values, indices, *(tensor.grad for tensor in tensors.values())])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_an_empty_batch(backend: interface.Backend) -> None:
    tensors = problem(0, 6, 20)
    values, indices = interface.encode_topk(**tensors, k=4)
    x_hat = interface.decode(torch.zeros(1).long(), indices.reshape(-1), values.reshape(-1), tensors["weight"])
    assert values.shape == (0, 4) and x_hat.shape == (0, 6)
    x_hat.sum().backward()
    assert not tensors["weight"].grad.any()


def test_the_cpu_backend_equals_the_reference_on_every_operation() -> None:
    offsets, indices, values = ragged(50, torch.float32)
    values, generator = values.detach(), torch.Generator().manual_seed(4)
    weight, grad = torch.randn(50, 8, generator=generator), torch.randn(4, 8, generator=generator)
    for name, arguments in {
        "decode": (offsets, indices, values, weight),
        "gather_dots": (offsets, indices, grad, weight),
        "accumulate": (offsets, indices, values, grad, 50),
    }.items():
        torch.testing.assert_close(getattr(cpu, name)(*arguments), getattr(reference, name)(*arguments))


def test_reference_under_autocast_returns_the_weights_precision() -> None:
    tensors = {name: tensor.detach() for name, tensor in problem(8, 16, 32, torch.float32).items()}
    with torch.autocast("cpu", torch.bfloat16):
        values, indices = reference.select_topk(tensors["x"], tensors["weight"], tensors["bias"], 4, None, 0)
        x_hat = reference.decode(torch.arange(9) * 4, indices.reshape(-1), values.reshape(-1), tensors["weight"])
    assert values.dtype == x_hat.dtype == torch.float32
