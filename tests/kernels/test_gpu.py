"""The Triton kernels against the reference: interpreted on the CPU, compiled where there is a CUDA device.

The interpreter runs one program after the other, so races, and bf16, which it has not, are left to the device.
"""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sae.kernels import cpu, interface, reference

pytest.importorskip("triton")
from sae.kernels import gpu
from sae.kernels.gpu import above, sparse, topk

INTERPRETED = os.environ["TRITON_INTERPRET"] == "1"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if (request.param == "cpu") != INTERPRETED:
        pytest.skip("Triton either interprets or compiles; TRITON_INTERPRET says which")
    return torch.device(request.param)


def problem(
    batch: int, d_in: int, d_sae: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(batch + d_in + d_sae)
    shapes = (batch, d_in), (d_sae, d_in), (d_sae,)
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


def assert_same_selection(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], pre: Tensor) -> None:
    """Same values, at latents that have them, none twice; entries of -inf stand for nothing."""
    (values, indices), (wanted, _) = got, expected
    torch.testing.assert_close(values.sort(1).values, wanted.sort(1).values)
    real = values > -torch.inf
    torch.testing.assert_close(pre.gather(1, indices.long())[real], values[real])
    assert not indices[~real].any()
    for row, kept in zip(indices.tolist(), real.tolist(), strict=True):
        latents = [latent for latent, is_real in zip(row, kept, strict=True) if is_real]
        assert len(set(latents)) == len(latents)


@pytest.mark.parametrize(
    ("batch", "d_in", "d_sae", "k", "k_aux", "group"),
    [
        (1, 6, 20, 3, 2, 1),
        (40, 70, 300, 4, 9, 16),  # no size a multiple of its block; both groupings in one pass
        (17, 1, 130, 1, 130, 32),  # a tile of two latents; all dead ones wanted
        (3, 10, 600, 1, 1, 128),
        (2, 8, 40, 40, 5, 1),
    ],
)
def test_topk_equals_the_reference(
    batch: int, d_in: int, d_sae: int, k: int, k_aux: int, group: int, device: torch.device
) -> None:
    assert topk.group_size(d_sae, k) == group
    x, weight, bias = problem(batch, d_in, d_sae, device)
    dead, pre = torch.arange(d_sae, device=device) % 3 == 0, x @ weight.T + bias
    values, indices = gpu.select_topk(x, weight, bias, k, dead, k_aux)
    wanted, latents = reference.select_topk(x, weight, bias, k, dead, k_aux)
    assert indices.dtype == torch.int32 and values.shape == wanted.shape
    for part, allowed in ((slice(0, k), torch.ones_like(dead)), (slice(k, None), dead)):
        masked = pre.masked_fill(~allowed, -torch.inf)
        assert_same_selection((values[:, part], indices[:, part]), (wanted[:, part], latents[:, part]), masked)


@pytest.mark.parametrize("kind", ["largest", "furthest from zero", "largest among the dead"])
def test_what_a_group_hides_is_found(kind: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk, "GROUPS_AT_ONCE", 16)
    d_sae, k, absolute = 600, 6, kind == "furthest from zero"
    x, weight, bias = problem(3, 5, d_sae, device)
    n_groups = topk._kept_shape(d_sae, k)[1]
    latents = torch.arange(d_sae, device=device)
    group, side = latents % n_groups, 1 - 2 * (latents % 7 == 0).int() * absolute
    bias = bias + side * (100 * (group == 21) + 50 * (group == 35))  # 15 members each, of which groups keep 4
    dead = latents % 2 == 1
    values, indices = gpu.select_topk(x, weight, bias, k, dead, k, absolute)
    part, allowed = (slice(k, None), dead) if "dead" in kind else (slice(0, k), dead | True)
    pre = (x @ weight.T + bias).masked_fill(~allowed, -torch.inf)
    best = (pre.abs() if absolute else pre).topk(k).indices
    assert (group[best] == 21).all(), "all of the largest are in one group"
    assert_same_selection((values[:, part], indices[:, part]), (pre.gather(1, best), best), pre)


def test_furthest_from_zero_equals_the_reference(device: torch.device) -> None:
    x, weight, bias = problem(18, 7, 260, device)
    got = gpu.select_topk(x, weight, bias, 4, None, 0, absolute=True)
    wanted = reference.select_topk(x, weight, bias, 4, None, 0, absolute=True)
    assert (wanted[0] < 0).any() and (wanted[0] > 0).any()
    assert_same_selection(got, wanted, x @ weight.T + bias)


def test_dead_latents_alone(device: torch.device) -> None:
    x, weight, bias = problem(3, 4, 700, device)
    latents = torch.arange(700, device=device)
    for dead in (latents % 6 == 2, latents < 0):  # in half of the tiles; nowhere
        values, indices = gpu.select_topk(x, weight, bias, 0, dead, 5)
        pre = (x @ weight.T + bias).masked_fill(~dead, -torch.inf)
        assert_same_selection((values, indices), pre.topk(5), pre)
    assert gpu.select_topk(x, weight, bias, 0, None, 5)[0].shape == (3, 0)


def test_what_is_not_a_number_is_selected_and_shows(device: torch.device) -> None:
    x, weight, bias = problem(3, 4, 300, device)
    weight[17, 2] = torch.nan
    x[1] = torch.nan
    values, indices = gpu.select_topk(x, weight, bias, 5, None, 0)
    assert (values == torch.inf).sum(1).tolist() == [1, 5, 1]
    assert indices[0][values[0] == torch.inf].tolist() == [17]
    _, latents, found = gpu.select_above(x[:1], weight, bias, bias.new_tensor(1e6))
    assert latents.tolist() == [17] and found.tolist() == [torch.inf]


def test_equal_values_are_selected_once_each(device: torch.device) -> None:
    x, weight, bias = (torch.zeros_like(tensor) for tensor in problem(3, 5, 300, device))
    values, indices = gpu.select_topk(x, weight, bias, 7, None, 0)
    assert not values.any()
    assert all(len(set(row)) == 7 and max(row) < 300 for row in indices.tolist())


def test_chunks_of_rows_do_not_show(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = problem(130, 4, 40, device)
    dead = torch.arange(40, device=device) % 4 == 0
    whole = gpu.select_topk(x, weight, bias, 2, dead, 3)
    monkeypatch.setattr(topk, "CHUNK_BYTES", 1)
    chunks = gpu.select_topk(x, weight, bias, 2, dead, 3)
    assert all(torch.equal(*pair) for pair in zip(whole, chunks, strict=True))


@pytest.mark.parametrize("min_programs", [1, 512], ids=["one span", "a span per tile"])
@pytest.mark.parametrize("capacity", [5, 300], ids=["overflowing", "roomy"])
def test_above_a_threshold_equals_dense(
    capacity: int, min_programs: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(above, "MIN_PROGRAMS", min_programs)
    monkeypatch.setattr(above, "FIRST_CAPACITY", capacity)
    x, weight, bias = problem(19, 20, 300, device)
    threshold = torch.linspace(4, 9, 300, device=device)
    x[3], bias[bias > 4] = 0, 0  # so that row 3 is empty
    pre = x @ weight.T + bias
    is_above = pre > threshold
    offsets, indices, values = gpu.select_above(x, weight, bias, threshold)
    assert offsets.diff().tolist() == is_above.sum(1).tolist()
    assert indices.tolist() == is_above.nonzero()[:, 1].tolist()
    torch.testing.assert_close(values, pre[is_above])

    slots, latents, counts = gpu.select_above_within(x, weight, bias, threshold, capacity)
    assert slots.shape == latents.shape == (19, capacity)
    assert counts.tolist() == is_above.sum(1).tolist() and counts[3] == 0 and counts.max() > 5
    for row in range(19):
        n = min(int(counts[row]), capacity)
        entries = slice(int(offsets[row]), int(offsets[row]) + n)
        assert latents[row, :n].tolist() == indices[entries].tolist() and not latents[row, n:].any()
        assert torch.equal(slots[row, :n], values[entries]) and (slots[row, n:] == -torch.inf).all()


def test_one_threshold_for_all_latents(device: torch.device) -> None:
    x, weight, bias = problem(3, 5, 30, device)
    offsets, _, values = gpu.select_above(x, weight, bias, bias.new_tensor(1.5))
    pre = x @ weight.T + bias
    assert offsets.diff().tolist() == (pre > 1.5).sum(1).tolist() and values.min() > 1.5


@pytest.mark.parametrize("n", [1, 24, 700, 2400])
@pytest.mark.parametrize("outlier", [1, 20])
def test_batch_topk_equals_the_reference(n: int, outlier: float, device: torch.device) -> None:
    x, weight, bias = problem(12, 6, 200, device)
    x[4] *= outlier  # takes most of the selection, more than rows put forward at first
    offsets, indices, values = gpu.select_batch_topk(x, weight, bias, n, bias.new_zeros(()))
    wanted_offsets, wanted_indices, wanted = reference.select_batch_topk(x, weight, bias, n, bias.new_zeros(()))
    assert offsets.tolist() == wanted_offsets.tolist()
    for first, last in zip(offsets.tolist(), offsets.tolist()[1:], strict=False):
        order = indices[first:last].argsort()
        assert indices[first:last][order].tolist() == wanted_indices[first:last].tolist()
        torch.testing.assert_close(values[first:last][order], wanted[first:last], rtol=1e-4, atol=1e-4)


def codes(d_sae: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of 3, 0, 40 and 1 entries; latent 2 in most of them, also several times in one row."""
    generator = torch.Generator().manual_seed(5)
    offsets = torch.tensor([0, 3, 3, 43, 44], device=device)
    indices = torch.randint(d_sae, (44,), generator=generator).where(torch.rand(44, generator=generator) < 0.5, 2)
    return offsets, indices.int().to(device), torch.randn(44, generator=generator).to(device)


@pytest.mark.parametrize("d_in", [1, 12, 300])
@pytest.mark.parametrize("piece", [512, 3], ids=["whole segments", "pieces"])
def test_sparse_operations_equal_the_reference(
    piece: int, d_in: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse, "PIECE", piece)
    offsets, indices, values = codes(11, device)
    values[5:9] = 0
    grad, weight, _ = problem(4, d_in, 11, device)
    for name, arguments in {
        "decode": (offsets, indices, values, weight),
        "gather_dots": (offsets, indices, grad, weight),
        "accumulate": (offsets, indices, values, grad, 11),
    }.items():
        got = getattr(gpu, name)(*arguments)
        torch.testing.assert_close(got, getattr(reference, name)(*arguments), msg=lambda text, name=name: name + text)
        assert torch.equal(got, getattr(gpu, name)(*arguments)), name


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12))
def test_pieces_cover_long_segments_in_order(counts: list[int]) -> None:
    bounds = torch.tensor([0, *counts]).cumsum(0)
    starts, ends, piece_bounds = sparse._cut(bounds[:-1], bounds[1:], 4, sum(counts) // 4 * 2)
    assert int(piece_bounds[-1]) <= len(starts)
    assert all(0 <= end <= sum(counts) for end in ends.tolist())
    for segment, count in enumerate(counts):
        pieces = range(int(piece_bounds[segment]), int(piece_bounds[segment + 1]))
        covered = [entry for piece in pieces for entry in range(int(starts[piece]), int(ends[piece]))]
        assert covered == (list(range(int(bounds[segment]), int(bounds[segment + 1]))) if count > 4 else [])
        assert all(int(ends[piece] - starts[piece]) <= 4 for piece in pieces)


class Recorder(TorchDispatchMode):
    """Names of the operations that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        has_mask = func._schema.name == "aten::index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.names.add("a boolean index" if has_mask else func._schema.name)
        return func(*args, **(kwargs or {}))


WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::bincount", "a boolean index"}


def operations_of_a_step() -> set[str]:
    x, weight, bias = problem(4, 5, 20, torch.device("cpu"))
    weight.requires_grad_()
    with Recorder() as recorder:
        dead = torch.arange(20) < 6
        values, indices = interface.encode_topk(x, bias[:5], weight, bias, 3, dead, 2)
        offsets = torch.arange(5) * 5
        interface.decode(offsets, indices.reshape(-1), values.relu().reshape(-1), weight).square().sum().backward()
        gpu.select_above_within(x, weight.detach(), bias, bias, 4)
    return recorder.names


@pytest.mark.skipif(not INTERPRETED, reason="the device has a check of its own")
def test_no_operation_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert operations_of_a_step() & WAITS, "the CPU's backend does wait, so the check can fail"
    monkeypatch.setitem(interface.BACKENDS, "cpu", gpu)
    assert not operations_of_a_step() & WAITS


def test_half_precision_products_under_autocast(device: torch.device) -> None:
    x, weight, bias = problem(4, 40, 60, device)
    with torch.autocast(device.type, torch.float16):
        values, indices = gpu.select_topk(x, weight, bias, 3, None, 0)
        above_values, _, _ = gpu.select_above_within(x, weight, bias, torch.zeros_like(bias), 60)
    pre = x.half().float() @ weight.half().float().T + bias
    assert values.dtype == above_values.dtype == torch.float32
    assert_same_selection((values, indices), pre.topk(3), pre)
    assert not torch.allclose(values.sort(1).values, (x @ weight.T + bias).topk(3).values.sort(1).values, 1e-5, 1e-5)
    torch.testing.assert_close(above_values.relu().sum(1), pre.relu().sum(1))


def test_the_cuda_backend_is_found_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(interface, "BACKENDS", {"cpu": cpu})
    assert interface.backend_of(tensor) is gpu
    monkeypatch.setattr(interface, "BACKENDS", {"cpu": cpu})
    monkeypatch.setattr(interface.importlib.util, "find_spec", lambda name: None)
    assert interface.backend_of(tensor) is reference


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget

class NoDevice:
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0

triton.runtime.driver.set_active(NoDevice())
launch = triton.JITFunction.run
compiled = []
def only_compile(self, *args, warmup, **options):
    kernel = launch(self, *args, warmup=True, **options)
    compiled.append((kernel.name, "wgmma" in kernel.asm["ptx"]))
triton.JITFunction.run = only_compile

from sae.kernels import gpu
from sae.kernels.gpu import above

x, weight, bias = torch.zeros(256, 64).bfloat16(), torch.zeros(2048, 64).bfloat16(), torch.zeros(2048)
values, indices = gpu.select_topk(x, weight, bias, 8, bias == 0, 16)
above._in_slots(x, weight, bias, bias, 32)
offsets = torch.arange(257) * 24
indices = torch.zeros_like(indices).flatten()
gpu.decode(offsets, indices, values.flatten(), weight)
gpu.gather_dots(offsets, indices, x, weight)
gpu.accumulate(offsets, indices, values.flatten(), x, 2048)
print(sorted(set(compiled)))
"""


def test_kernels_compile_for_a_device_that_is_not_there(tmp_path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(
        [
            ("_above_kernel", True),
            ("_dots_kernel", False),
            ("_keep_kernel", True),
            ("_look_again_kernel", False),
            ("_sum_kernel", False),
        ]
    )


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs compiled kernels")
class TestOnTheDevice:
    """What the interpreter can't show: bf16, TF32, races, waiting."""

    @pytest.mark.parametrize("batch", [1, 129, 2048])
    def test_bf16(self, batch: int) -> None:
        x, weight, bias = problem(batch, 776, 8200, torch.device("cuda"))
        dead = torch.arange(8200, device="cuda") % 5 == 0
        with torch.autocast("cuda", torch.bfloat16):
            values, indices = gpu.select_topk(x, weight, bias, 32, dead, 384)
        pre = (x.bfloat16().double() @ weight.bfloat16().double().T + bias).float()
        for part, masked in ((slice(0, 32), pre), (slice(32, None), pre.masked_fill(~dead, -torch.inf))):
            best = masked.topk(values[:, part].shape[1])
            torch.testing.assert_close(values[:, part].sort(1).values, best.values.sort(1).values, rtol=1e-3, atol=1e-2)
            assert_same_selection_up_to_rounding(values[:, part], indices[:, part], masked)

    def test_tf32_only_when_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, weight, bias = problem(256, 768, 4096, torch.device("cuda"))
        exact = (x.double() @ weight.double().T + bias).topk(16).values.float().sort(1).values
        error = (gpu.select_topk(x, weight, bias, 16, None, 0)[0].sort(1).values - exact).abs().max()
        monkeypatch.setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32")
        rough = (gpu.select_topk(x, weight, bias, 16, None, 0)[0].sort(1).values - exact).abs().max()
        assert error < 1e-3 < rough < 1

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_many_runs_give_the_same_bits_and_none_waits(self, dtype: torch.dtype) -> None:
        x, weight, bias = problem(4096, 768, 16384, torch.device("cuda"))
        bias[:20] += 1000  # latents that fire in every row
        dead = torch.arange(16384, device="cuda") % 7 == 0
        grad = torch.randn_like(x)
        first: list[Tensor] = []
        for run in range(20):
            leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
            torch.cuda.set_sync_debug_mode("error" if run else "default")
            with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
                values, indices = interface.encode_topk(leaves[0], x[0], *leaves[1:], 64, dead, 256)
                offsets = torch.arange(4097, device="cuda") * 320
                x_hat = interface.decode(offsets, indices.reshape(-1), values.relu().reshape(-1), leaves[1])
                over = gpu.select_above_within(x, weight, bias, bias, 512)
            (x_hat * grad).sum().backward()
            torch.cuda.set_sync_debug_mode("default")
            results = [values, indices, x_hat, *over, *(leaf.grad for leaf in leaves)]
            first = first or results
            assert all(torch.equal(*pair) for pair in zip(first, results, strict=True)), run


def assert_same_selection_up_to_rounding(values: Tensor, indices: Tensor, pre: Tensor) -> None:
    torch.testing.assert_close(pre.gather(1, indices.long()), values, rtol=1e-3, atol=1e-2)
    assert all(len(set(row)) == len(row) for row in indices.tolist())
