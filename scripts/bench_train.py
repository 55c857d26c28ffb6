"""Whole training steps of ours and of the peers, as multiples of the encoder's dense product x @ W_enc.

A step is forward, backward, clipping, optimiser, and what keeps norms and counts of firing: for each library its own
training code (scripts/learners.py). All are interleaved in one run, one step each per round, and the medians compared.
The sparsity penalties of ReLU and JumpReLU are set by hand for an L0 of about k, so that all do the same work: latents
are made to fire that often by their biases or thresholds before timing starts, and learning rates are tiny.

Peers are timed where they are installed: scripts/interop_environment.sh makes such an environment.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from scripts import bench
from scripts.bench import Figure
from scripts.learners import Learner, Ours, Task, makers

TARGETS = {"topk": 1.35, "topk with auxk": 1.8, "batch_topk": 1.8, "matryoshka": 3.0, "jumprelu": 3.0, "relu": 3.0}
BF16_TARGET = 1.0
MEMORY_TARGET = 262.0
"""MiB at the default sizes."""
CASES = {
    "topk": ("topk", 0.0, {}),
    "topk with auxk": ("topk", 0.25, {}),
    "batch_topk": ("batch_topk", 0.0, {}),
    "matryoshka": ("matryoshka", 0.0, {}),
    "jumprelu": ("jumprelu", 0.0, {}),
    "relu": ("relu", 0.0, {}),
}
N_BATCHES = 4


def vectors(n: int, d_in: int) -> Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(0))


def task_of(case: str, options: object) -> Task:
    kind, dead_share, settings = CASES[case]
    sizes = {name: getattr(options, name) for name in ("d_in", "d_sae", "k", "batch")}
    return Task(kind=kind, n_steps=100_000, dead_share=dead_share, lr=1e-9, settings=dict(settings), **sizes)


@torch.no_grad()
def make_sparse(learner: Learner, x: Tensor, k: int) -> float:
    """Shift what decides firing so that about k latents fire per vector; return the L0 that results."""
    model = getattr(learner, "dictionary", None) or getattr(learner, "sae", None) or learner.trainer.ae  # type: ignore[attr-defined]
    scaled = x * getattr(learner, "scale", 1.0)
    W = model.W_enc_rows if isinstance(learner, Ours) else None
    names = dict(model.named_parameters())
    threshold = next((tensor for name, tensor in names.items() if "threshold" in name), None)
    bias = next(
        tensor for name, tensor in names.items() if name in ("b_enc", "encoder.bias", "encoder.final_block.0.bias")
    )
    if W is None:
        W = names.get("W_enc", names.get("encoder.weight", names.get("encoder.final_block.0.weight")))
        W = W.T if W.shape[0] == x.shape[1] else W
    pre = scaled @ W.T + bias
    cut = pre.flatten().topk(k * len(x)).values[-1]
    if threshold is None:
        bias.sub_(cut)
    else:
        threshold.fill_(cut.log() if float(threshold.mean()) < 0 or "log" in str(list(names)) else cut)
    return float((learner.codes(x) != 0).sum(1).float().mean())


def prepared(make: Callable[[Task, Tensor], Learner], task: Task, x: Tensor) -> Learner:
    learner = make(task, x)
    if task.kind in ("relu", "jumprelu"):
        make_sparse(learner, x, task.k)
    return learner


def bench_case(case: str, options: object) -> list[Figure]:
    """Time one architecture for everyone, interleaved with the bare product."""
    task = task_of(case, options)
    x = vectors(N_BATCHES * task.batch, task.d_in).split(task.batch)
    choices = ("exact", "bf16") if task.kind == "topk" else ("exact",)
    learners = {name: prepared(make, task, x[0]) for name, make in makers(task.kind, choices).items()}
    weight = torch.randn(task.d_sae, task.d_in)
    times: dict[str, list[float]] = {name: [] for name in ("product", *learners)}
    for round_number in range(options.rounds + 2):  # type: ignore[attr-defined]
        batch = x[round_number % N_BATCHES]
        rows = {"product": bench.timed(lambda batch=batch: batch @ weight.T).clock}
        rows |= {name: bench.timed(lambda one=one, b=batch: one.step(b)).clock for name, one in learners.items()}
        if round_number >= 2:  # the first rounds allocate
            for name, seconds in rows.items():
                times[name].append(seconds)
    floor = statistics.median(times["product"])
    figures = [Figure(f"{case}/product", floor, "s", "neither")]
    for name in learners:
        target = {"sae": TARGETS[case], "sae, bf16 candidates": BF16_TARGET}.get(name)
        target = None if case == "topk with auxk" and "bf16" in name else target
        figures.append(Figure(f"{case}/{name}", statistics.median(times[name]) / floor, "x", "lower", target))
    return figures


def memory_added(name: str, options: object) -> float:
    """Return the MiB that two TopK steps add to a process of their own, parameters included."""
    words = [sys.executable, "-m", "scripts.bench_train", "--memory-of", name]
    for option in ("d_in", "d_sae", "k", "batch", "threads"):
        words += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


def memory_target(name: str, options: object) -> float | None:
    sizes = [getattr(options, size) for size in ("d_in", "d_sae", "batch")]
    return MEMORY_TARGET if name == "sae" and sizes == [512, 8192, 2048] else None


def print_memory(name: str, options: object) -> None:
    task = task_of("topk", options)
    x = vectors(task.batch, task.d_in)
    tiny = Task(kind="topk", d_in=16, d_sae=64, k=4, batch=8, n_steps=10)
    makers("topk")[name](tiny, vectors(8, 16)).step(vectors(8, 16))  # imports and thread pools are not the step's
    before = resident_peak(reset=True)
    learner = makers("topk")[name](task, x)
    for _ in range(2):
        learner.step(x)
    print((resident_peak() - before) / 1024)


def resident_peak(reset: bool = False) -> int:
    """Return the process's peak of resident memory in KiB; starting anew from what is resident now, if asked."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def main() -> None:
    parser = bench.parser(__doc__)
    for name, default in (("d-in", 512), ("d-sae", 8192), ("k", 32), ("batch", 2048), ("rounds", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--memory-of", help="print the memory of one library and stop")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print_memory(options.memory_of, options)
        return
    print(f"load average before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores, {options.threads} threads")
    figures = []
    for case in options.cases:
        figures += bench_case(case, options)
    if "topk" in options.cases:
        figures += [
            Figure(f"memory/{name}", memory_added(name, options), "MiB", "lower", memory_target(name, options))
            for name in makers("topk")
        ]
    print(f"load average after: {os.getloadavg()[0]:.2f}")
    bench.publish(figures, options.json)


if __name__ == "__main__":
    main()
