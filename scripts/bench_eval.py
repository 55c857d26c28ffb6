"""What evaluation costs: the whole of it beside encoding once, and the Monosemanticity Score beside its definition.

python -m scripts.bench_eval [--json FILE] [--threads 2] [--vectors 1000000]

The whole evaluation is the default one, with every control that needs no training, of a dictionary of 16,384 latents on
the vectors of configs/harvest-stdlib-1l.yaml, which are harvested first if need be. The subject is not run.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch

from sae import config
from sae.activations.harvest_config import HarvestConfig
from sae.activations.reopen import open_harvested
from sae.activations.store import TRAINING_KINDS, ActivationStore, Vectors
from sae.dictionaries.topk import TopK, TopKConfig
from sae.evaluation.config import EvaluateConfig
from sae.evaluation.evaluate import evaluate
from sae.evaluation.responses import SparseResponses
from sae.evaluation.similarity import Similarity, mean_cosine
from scripts import bench
from scripts.bench import Figure, timed

STORE, HOOKPOINT, CHUNK = Path("runs/stdlib-1l/store"), "blocks.0.mlp.hook_post", 1024
N_ITEMS, N_UNITS, N_FEATURES, L0 = 50_000, 16_384, 512, 32
LOOP_ITEMS = 200
TARGET_SECONDS, TARGET_GB = 60.0, 2.0


def bench_evaluation(n_vectors: int, threads: int) -> list[Figure]:
    """Evaluate in a process of its own, so that its memory is known; encode the same vectors before and after."""
    if not (STORE / "config.yaml").is_file():
        subprocess.run([sys.executable, "-m", "sae.cli", "harvest", "configs/harvest-stdlib-1l.yaml"], check=True)
    vectors = ActivationStore(STORE).vectors(HOOKPOINT, TRAINING_KINDS)
    n_vectors = min(n_vectors, len(vectors))
    dictionary = drawn_dictionary(vectors)

    def encode() -> None:
        for start in range(0, n_vectors, CHUNK):
            with torch.no_grad():
                dictionary.encode(vectors.read(start, min(start + CHUNK, n_vectors)))

    before = timed(encode).clock
    words = ["-m", "scripts.bench_eval", "--evaluate", str(n_vectors), "--threads", str(threads)]
    done = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, text=True)
    seconds, gigabytes = json.loads(done.stdout)
    encoding = (before + timed(encode).clock) / 2
    return [
        Figure("evaluation/vectors", n_vectors, "vectors", "neither"),
        Figure("evaluation/encoding", encoding, "s"),
        Figure("evaluation/whole", seconds, "s"),
        Figure("evaluation/over_encoding", seconds / encoding, "x", target=3.0),
        Figure("evaluation/peak_memory", gigabytes, "GB", target=TARGET_GB),
    ]


def drawn_dictionary(vectors: Vectors) -> TopK:
    """Return a dictionary that was never trained; evaluating it costs the same."""
    dictionary = TopK(TopKConfig(d_sae=N_UNITS, k=L0), vectors.d_in)
    dictionary.initialise(vectors.read(0, 8192), torch.Generator().manual_seed(0))
    dictionary.provenance = {"subject": vectors.store.subject_id, "hookpoint": HOOKPOINT}
    return dictionary


def evaluate_alone(n_vectors: int) -> None:
    """Run the default evaluation; print seconds and the peak of memory as JSON."""
    store = ActivationStore(STORE)
    harvested = config.load(HarvestConfig, STORE / "config.yaml")
    _, inputs = open_harvested(harvested)
    dictionary = drawn_dictionary(store.vectors(HOOKPOINT, TRAINING_KINDS))
    settings = EvaluateConfig(dictionary="drawn", store=STORE, out=STORE, n_vectors=n_vectors, trained_controls={})
    seconds = timed(lambda: evaluate(dictionary, store, settings, None, inputs)).clock
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6]))


def bench_monosemanticity() -> list[Figure]:
    """Score 16k latents on 50k images, L0 32, in an embedding of width 512.

    The loop is O(items^2 units): it runs over all units but few items, and its time is extrapolated by their square.
    The floor is the time of a dense float64 matrix product with as many multiplications as the sums need.
    """
    responses, similarity = _drawn(N_ITEMS, N_UNITS, L0), _embedding(N_ITEMS)
    similarity.baseline  # noqa: B018  (computed once, for every dictionary)
    seconds = timed(lambda: mean_cosine(responses, similarity)).clock
    few, their = _drawn(LOOP_ITEMS, N_UNITS, L0), _embedding(LOOP_ITEMS)
    dense = torch.cat([block for _, block in few.blocks()], 1)
    dense /= dense.amax(0).clamp(min=1e-12)
    looped: list[torch.Tensor] = []
    loop_seconds = timed(lambda: looped.append(_by_pairs(dense, their.embedding))).clock
    off = float((looped[0] - mean_cosine(few, their)).abs().nan_to_num(0).max())
    assert off < 1e-4, off
    loop_seconds *= (N_ITEMS / LOOP_ITEMS) ** 2
    floor = _multiplications_per_second()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    name = "evaluation/monosemanticity"
    return [
        Figure(f"{name}_seconds", seconds, "s", target=TARGET_SECONDS),
        Figure(f"{name}_peak_memory", peak, "GB", target=TARGET_GB),
        Figure(f"{name}_loop_over_pairs_extrapolated", loop_seconds / 3600, "h", "neither"),
        Figure(f"{name}_faster_than_loop", loop_seconds / seconds, "x", "higher"),
        Figure(f"{name}_over_arithmetic_floor", seconds / (N_ITEMS * L0 * N_FEATURES / floor), "x"),
    ]


def _drawn(n_items: int, n_units: int, l0: int) -> SparseResponses:
    """Every item has the same number of random latents, with random strengths."""
    generator = torch.Generator().manual_seed(0)
    items = torch.arange(n_items).repeat_interleave(l0)
    # Latents of an item are spaced apart, so that none is drawn twice.
    offset = torch.randint(n_units, (n_items, 1), generator=generator)
    spaced = torch.arange(l0) * (n_units // l0) + torch.randint(n_units // l0, (n_items, l0), generator=generator)
    units = ((offset + spaced) % n_units).flatten()
    values = torch.rand(len(items), generator=generator) + 0.01
    return SparseResponses.of_entries(items, units, values, n_items, n_units)


def _embedding(n_items: int) -> Similarity:
    generator = torch.Generator().manual_seed(1)
    return Similarity.of_vectors("random", torch.randn(n_items, N_FEATURES, generator=generator) + 0.5)


def _by_pairs(activations: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """Add up pair after pair, all units at once, as the paper defines the score."""
    above = torch.zeros(activations.shape[1], dtype=torch.float64)
    below = torch.zeros_like(above)
    cosine = embedding @ embedding.T
    for n in range(len(activations)):
        for m in range(n):
            weight = activations[n] * activations[m]
            above += weight * cosine[n, m]
            below += weight
    return above / below


def _multiplications_per_second(size: int = 2048) -> float:
    one = torch.rand(size, size, dtype=torch.float64)
    return size**3 / min(timed(lambda: one @ one).clock for _ in range(3))


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000, help="at most this many for the whole evaluation")
    parser.add_argument("--evaluate", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.evaluate:
        evaluate_alone(options.evaluate)
        return
    bench.publish(bench_evaluation(options.vectors, options.threads) + bench_monosemanticity(), options.json)


if __name__ == "__main__":
    main()
