"""Whole TopK training steps on a CUDA device, as multiples of the least that a step can cost.

The floor is the encoder's product in bf16, as cuBLAS does it, plus the optimiser's update at the speed of memory: fused
Adam reads parameter, gradient and both moments and writes all but the gradient, 28 bytes per parameter; the speed is
that of a copy in the same run. The step is `Trainer.step` as in a run (bf16 autocast), without an auxiliary loss, with
one and nothing dead, and with one and a quarter of the latents dead. Beside it a dense step of the same loss under
torch.compile, where its pre-activations fit into memory. Medians of the rounds; one case at a time, as the largest fill
the device.
"""

import itertools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sae.dictionaries.topk import TopK, TopKConfig
from sae.training.config import TrainConfig
from sae.training.optimiser import AdamConfig, clip_gradients, make_optimiser
from sae.training.trainer import Trainer
from scripts import bench
from scripts.bench import Figure

TARGET = 2.0
BYTES_PER_PARAMETER = 28
PRODUCT_ROWS = 4096
CASES = {"topk": (0.0, 0.0), "topk with auxk, none dead": (1 / 32, 0.0), "topk with auxk": (1 / 32, 0.25)}


def seconds(run: Callable[[], object]) -> float:
    """Time on the device, everything before it finished."""
    torch.cuda.synchronize()
    return bench.timed(lambda: (run(), torch.cuda.synchronize())).clock


def median(run: Callable[[], object], rounds: int) -> float:
    return statistics.median([seconds(run) for _ in range(rounds + 2)][2:])


def floor(d_in: int, d_sae: int, batch: int, rounds: int) -> float:
    """Return seconds of the bf16 product, in blocks of rows so that its result fits, plus those of the update."""
    x = torch.randn(min(batch, PRODUCT_ROWS), d_in, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(d_in, d_sae, device="cuda", dtype=torch.bfloat16)
    out = torch.empty(len(x), d_sae, device="cuda", dtype=torch.bfloat16)
    product = median(lambda: torch.mm(x, weight, out=out), rounds) * batch / len(x)
    source = torch.empty(2**29, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    per_byte = median(lambda: target.copy_(source), rounds) / (2 * source.numel())
    return product + BYTES_PER_PARAMETER * (2 * d_in * d_sae + d_in + d_sae) * per_byte


def our_step(
    d_in: int, d_sae: int, k: int, batch: int, coefficient: float, dead_share: float
) -> Callable[[Tensor], object]:
    config = TopKConfig(d_sae=d_sae, k=k, auxk_coefficient=coefficient)
    settings = TrainConfig(
        store=Path(),
        hookpoint="bench",
        out=Path(),
        dictionary=config,
        n_vectors=10**9,
        batch_vectors=batch,
        device="cuda",
    )
    dictionary = TopK(config, d_in).cuda()
    nn.init.normal_(dictionary.W_enc_rows, std=d_in**-0.5)
    dictionary.W_dec.data.copy_(nn.functional.normalize(dictionary.W_enc_rows.data))
    trainer = Trainer(dictionary, settings.resolve(10**9), 1.0)
    dead = torch.arange(d_sae, device="cuda") < round(dead_share * d_sae)

    def step(x: Tensor) -> object:
        trainer.firing.since_fired.masked_fill_(dead, 10**9)
        return trainer.step(x)

    return step


class Dense(nn.Module):
    """The same loss in plain torch, every product dense."""

    def __init__(self, d_in: int, d_sae: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.W_enc = nn.Parameter(torch.randn(d_sae, d_in) * d_in**-0.5)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(nn.functional.normalize(self.W_enc.data))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def forward(self, x: Tensor) -> Tensor:
        values, latents = nn.functional.linear(x - self.b_dec, self.W_enc, self.b_enc).topk(self.k, sorted=False)
        codes = values.new_zeros(len(x), len(self.W_enc)).scatter(1, latents, values.relu())
        return (codes @ self.W_dec + self.b_dec - x).square().sum(1).mean() / x.shape[1]


def dense_step(d_in: int, d_sae: int, k: int) -> Callable[[Tensor], object]:
    dense = Dense(d_in, d_sae, k).cuda()
    parameters = list(dense.parameters())
    optimiser, compiled = make_optimiser(parameters, AdamConfig()), torch.compile(dense)

    def step(x: Tensor) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = compiled(x)
        loss.backward()
        clip_gradients(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            dense.W_dec.copy_(nn.functional.normalize(dense.W_dec))

    return step


def bench_shape(d_in: int, d_sae: int, batch: int, k: int, rounds: int) -> list[Figure]:
    """Time all cases of one shape."""
    name, x = f"{d_in}x{d_sae} batch {batch} k {k}", torch.randn(batch, d_in, device="cuda")
    least = floor(d_in, d_sae, batch, rounds)
    figures = [Figure(f"{name}/floor", 1000 * least, "ms", "neither")]
    makers = {case: lambda sizes=sizes: our_step(d_in, d_sae, k, batch, *sizes) for case, sizes in CASES.items()}
    for case, make in (makers | {"dense, compiled": lambda: dense_step(d_in, d_sae, k)}).items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            step = make()
            taken = median(lambda step=step: step(x), rounds)
        except torch.OutOfMemoryError:
            print(f"{name}/{case}: does not fit into memory")
            continue
        finally:
            step = None
        figures.append(Figure(f"{name}/{case}", taken / least, "x", "lower", TARGET if case == "topk" else None))
        figures.append(Figure(f"{name}/{case}, memory", torch.cuda.max_memory_allocated() / 2**30, "GiB"))
    return figures


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--d-in", type=int, nargs="+", default=[768, 2304, 4096])
    parser.add_argument("--d-sae", type=int, nargs="+", default=[2**15, 2**16, 2**17])
    parser.add_argument("--batch", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--k", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench_gpu: torch finds no CUDA device. Steps on a CPU are measured by scripts/bench_train.py.")
    print(torch.cuda.get_device_name(), torch.__version__)
    shapes = itertools.product(options.d_in, options.d_sae, options.batch, options.k)
    bench.publish([figure for shape in shapes for figure in bench_shape(*shape, options.rounds)], options.json)


if __name__ == "__main__":
    main()
