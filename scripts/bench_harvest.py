"""What harvesting costs beside the bare forward pass, and how fast a store is read in random order.

A local GPT-2 with random weights (4 layers, 256 wide) is read at two hookpoints, residual stream and MLP, in bf16.
Every figure is the median over rounds in which the contenders take turns, as a ratio to the bare Hugging Face forward
pass cut behind the same layer. Hashing and fsync are included.

    python -m scripts.bench_harvest [--json FILE] [--rounds 7] [--examples 512] [--threads 2]
"""

import hashlib
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.reader import ShuffledReader
from sae.activations.store import ActivationStore
from sae.activations.verify import verify
from sae.subjects.load import load
from sae.tensors import Batch
from scripts import bench
from scripts.bench import Figure, Seconds

LAYER, LENGTH, BATCH, SHARD = 2, 128, 16, 128
HOOKPOINTS = (f"blocks.{LAYER}.hook_resid_post", f"blocks.{LAYER}.mlp.hook_post")
TARGET = 1.10


class RandomTokens:
    """Windows of random token ids, made at once so that contenders do not wait for them."""

    def __init__(self, n_examples: int, n_vocab: int) -> None:
        self.ids = torch.randint(n_vocab, (n_examples, LENGTH), generator=torch.Generator().manual_seed(0))
        self.fingerprint = hashlib.sha256(self.ids.numpy().tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, start: int, stop: int) -> Batch:
        return Batch(first_example=start, tokens=self.ids[start:stop])

    def describe(self) -> dict[str, Any]:
        return {"kind": "random", "length": LENGTH}


def build_model(folder: Path) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    size = {"n_layer": 4, "n_embd": 256, "n_head": 4, "n_positions": LENGTH, "vocab_size": 4096}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(folder)
    return model.eval()


def cut(model: GPT2LMHeadModel) -> torch.nn.Module:
    """Return the model without head, behind the layer."""
    body = model.transformer
    body.h = body.h[: LAYER + 1]
    body.ln_f = torch.nn.Identity()
    return body


@torch.no_grad()
def forward(body: torch.nn.Module, inputs: RandomTokens) -> None:
    for start in range(0, len(inputs), BATCH):
        body(input_ids=inputs.ids[start : start + BATCH], use_cache=False)


@torch.no_grad()
def forward_and_save(body: torch.nn.Module, inputs: RandomTokens, out: Path) -> None:
    """The least that keeps anything: a hook, a conversion, one file per shard, no hash, no fsync."""
    mlp: list[torch.Tensor] = []
    handle = body.h[LAYER].mlp.act.register_forward_hook(lambda _, __, output: mlp.append(output))
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in HOOKPOINTS}
    for start in range(0, len(inputs), BATCH):
        residual = body(input_ids=inputs.ids[start : start + BATCH], use_cache=False).last_hidden_state
        for name, value in zip(HOOKPOINTS, (residual, mlp.pop()), strict=True):
            kept[name].append(value.flatten(0, 1).bfloat16())
        if (start + BATCH) % SHARD == 0:
            save_file({name: torch.cat(parts) for name, parts in kept.items()}, out / f"{start}.safetensors")
            kept = {name: [] for name in HOOKPOINTS}
    handle.remove()


def measure(folder: Path, rounds: int, n_examples: int) -> dict[str, list[Seconds]]:
    body = cut(build_model(folder / "model"))
    subject = load(f"language:{folder / 'model'}")
    inputs = RandomTokens(n_examples, 4096)
    out = folder / "out"
    config = HarvestConfig(
        subject=subject.id, hookpoints=HOOKPOINTS, out=out, batch_examples=BATCH, shard_examples=SHARD
    )

    def read_only() -> None:
        for start in range(0, n_examples, BATCH):
            subject.run(inputs.batch(start, start + BATCH), HOOKPOINTS)

    contenders: dict[str, Callable[[], Any]] = {
        "bare": lambda: forward(body, inputs),
        "subject": read_only,
        "plain_write": lambda: forward_and_save(body, inputs, out),
        "harvest": lambda: harvest(subject, inputs, config),
    }
    times: dict[str, list[Seconds]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            out.mkdir(exist_ok=True)
            seconds = bench.timed(run)
            if number:  # the first round warms up
                times[name].append(seconds)
            if name != "harvest" or number < rounds:
                shutil.rmtree(out)
    return times


def read_rate(store: ActivationStore, n_batches: int = 50) -> float:
    """Return GB/s of stored bytes read in random order, from the page cache."""
    vectors = store.vectors(HOOKPOINTS[1])
    reader = ShuffledReader(vectors, batch_vectors=4096, seed=0)
    next(reader)
    seconds = bench.timed(lambda: [next(reader) for _ in range(n_batches)])
    return n_batches * 4096 * vectors.d_in * vectors.dtype.itemsize / seconds.clock / 1e9


def over_bare(times: dict[str, list[Seconds]]) -> list[Figure]:
    """Return the median ratios to the bare forward pass of the same round, on the clock and in processor time."""
    figures = []
    for name in [name for name in times if name != "bare"]:
        rounds = list(zip(times[name], times["bare"], strict=True))
        clock = statistics.median(one.clock / bare.clock for one, bare in rounds)
        processor = statistics.median(one.processor / bare.processor for one, bare in rounds)
        figures.append(Figure(f"harvest/{name}_over_bare", clock, "x", target=TARGET if name == "harvest" else None))
        figures.append(Figure(f"harvest/{name}_over_bare_processor", processor, "x"))
    return figures


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--examples", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        times = measure(Path(folder), options.rounds, options.examples)
        rate = read_rate(verify(Path(folder) / "out"))
    tokens = options.examples * LENGTH / statistics.median(seconds.clock for seconds in times["harvest"])
    figures = [
        *over_bare(times),
        Figure("harvest/tokens_per_second", tokens, "1/s", "higher"),
        Figure("harvest/shuffled_read", rate, "GB/s", "higher"),
    ]
    bench.publish(figures, options.json)


if __name__ == "__main__":
    main()
