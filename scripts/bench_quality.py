"""How good dictionaries get for the same work: ours and the peers' at the same batches, steps and L0.

Two grounds. On a synthetic one the features are known: FVU, share of features recovered (a decoder row with a cosine
above 0.9), mean matched cosine (MCC), F1 of firing, dead latents. `small` has 256 independent features in 64
dimensions; `hierarchy` has trees of features whose members fire together, with Zipf frequencies, in the manner of
SynthSAEBench (decoderesearch, 2026); `large` is its published size, for a GPU. On the other, vectors of a built-in
subject, FVU and dead latents are measured on its score split.

Every run is repeated over seeds; figures are means, brackets the range over seeds. Peers run where they are installed
(scripts/interop_environment.sh), with their own defaults for everything that the task does not fix.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.evaluation import recovery, toys
from sae.log import progress
from scripts import bench
from scripts.learners import Learner, Ours, Task, makers

EVALUATED = 65_536
"""Vectors that a trained dictionary is scored on."""
SAMPLE = 8192
"""Vectors that it is initialised from."""
CHUNK = 4096
TRUTH_SEED = 0x7247
"""Directions drawn with the seed of a dictionary would be those that it starts from."""

PENALTIES: dict[str, dict[str, dict[str, Any]]] = {
    "relu": {
        "SAELens": {"l1_coefficient": 2.0},
        "dictionary_learning": {"l1_penalty": 1.0},
        "overcomplete": {"penalty": 4e-5},
    },
    "jumprelu": {"overcomplete": {"penalty": 4e-5}},
}
"""Peers without a target for L0 get penalties found by hand on `small`, for an L0 as near to k as they reach there."""


@dataclass(frozen=True)
class Ground:
    """Where vectors come from, and how large a dictionary for them is."""

    name: str
    d_in: int
    d_sae: int
    k: int
    batch: int
    n_steps: int
    toy: toys.Toy | None = None
    store: Path | None = None
    score_store: Path | None = None
    hookpoint: str = ""


def grounds() -> dict[str, Ground]:
    """Return every ground by name; a store must have been harvested."""
    return {
        "small": Ground("small", 64, 256, 8, 1024, 4000, toy=toys.superposition(256, 64, 8.0, seed=TRUTH_SEED)),
        "hierarchy": Ground("hierarchy", 256, 1024, 16, 1024, 4000, toy=_hierarchy(64, 3, 2, 256)),
        "large": Ground("large", 768, 4096, 25, 1024, 195_313, toy=_hierarchy(128, 4, 3, 768)),
        "stdlib-1l": Ground(
            "stdlib-1l",
            *(512, 2048, 32, 1024, 500),
            store=Path("runs/stdlib-1l/store"),
            score_store=Path("runs/stdlib-1l/store-score"),
            hookpoint="blocks.0.mlp.hook_post",
        ),
        "concepts-clip-rn": Ground(
            "concepts-clip-rn",
            *(512, 1024, 16, 1024, 400),
            store=Path("runs/concepts-clip/store"),
            score_store=Path("runs/concepts-clip/store-score"),
            hookpoint="visual.layer4.0.hook_post",
        ),
    }


def _hierarchy(n_roots: int, branching: int, depth: int, d_in: int) -> toys.Hierarchical:
    """Trees whose roots have Zipf frequencies with exponent 0.5, the most frequent firing in 40 % of rows."""
    toy = toys.hierarchical(n_roots, branching, depth, d_in, seed=TRUTH_SEED)
    roots = 0.4 * torch.arange(1, n_roots + 1, dtype=torch.float32) ** -0.5
    probabilities = toy.probabilities.clone()
    for feature, parent in enumerate(toy.parents.tolist()):
        probabilities[feature] = roots[feature] if parent < 0 else 0.3 * probabilities[parent]
    return toys.Hierarchical(toy.directions, probabilities, parents=toy.parents, noise=0.02)


class Stream:
    """Vectors of a ground, batch after batch, the same for everyone."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self.ground, self.generator = ground, torch.Generator().manual_seed(1000 + seed)
        if ground.store is not None:
            from sae.activations.reader import ShuffledReader

            vectors = ActivationStore(ground.store).vectors(ground.hookpoint, TRAINING_KINDS)
            self.reader = ShuffledReader(vectors, ground.batch, seed=seed)

    def batch(self, n: int) -> Tensor:
        if self.ground.toy is not None:
            return self.ground.toy.sample(n, self.generator)[0]
        return torch.cat([next(self.reader).float() for _ in range(-(-n // self.ground.batch))])[:n]


def held_out(ground: Ground) -> tuple[Tensor, Tensor | None]:
    """Return vectors to score on, and which features fire in each where that is known."""
    if ground.toy is not None:
        return ground.toy.sample(EVALUATED, torch.Generator().manual_seed(7))
    assert ground.score_store is not None, "a ground has a toy or a store"
    vectors = ActivationStore(ground.score_store).vectors(ground.hookpoint, TRAINING_KINDS)
    return vectors.read(0, min(EVALUATED, len(vectors))).float(), None


def train(learner: Learner, ground: Ground, seed: int, bar: Any) -> None:
    """Give a learner its steps; ours is then calibrated on vectors that it has not seen."""
    stream = Stream(ground, seed)
    for _ in range(ground.n_steps):
        learner.step(stream.batch(ground.batch))
        bar.advance(ground.batch)
    if isinstance(learner, Ours):
        learner.calibrate(stream.batch(EVALUATED))
    if hasattr(learner, "finish"):
        learner.finish()  # type: ignore[attr-defined]


@torch.no_grad()
def score(learner: Learner, ground: Ground, x: Tensor, fired: Tensor | None) -> dict[str, float]:
    """Return what a dictionary achieves on held-out vectors."""
    error, n_active, count = 0.0, 0.0, torch.zeros(ground.d_sae)
    hits = None if fired is None else torch.zeros(ground.d_sae, fired.shape[1])
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        active = (learner.codes(part) != 0).float()
        error += float((part - learner.reconstruct(part)).double().square().sum())
        n_active += float(active.sum())
        count += active.sum(0)
        if hits is not None and fired is not None:
            hits += active.T @ fired[start : start + CHUNK].float()
    spread = float((x.double() - x.double().mean(0)).square().sum())
    found = {"fvu": error / spread, "l0": n_active / len(x), "dead": float((count == 0).float().mean())}
    if ground.toy is not None and hits is not None and fired is not None:
        firing = recovery.Firing(hits.double(), count.double(), fired.double().sum(0))
        found |= _recovery(ground.toy, learner.decoder, firing)
    return found


def _recovery(toy: toys.Toy, decoder: Tensor, firing: recovery.Firing) -> dict[str, float]:
    found = recovery.Recovery.of(decoder, toy.directions)
    return {
        "recovered": recovery.recovered_fraction(found).score().value,
        "mcc": recovery.mcc(found).score().value,
        "f1": recovery.firing_f1(found, firing).score().value,
    }


def run(ground: Ground, kinds: list[str], n_seeds: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Train and score everyone, one after another on the same batches."""
    x, fired = held_out(ground)
    rows = []
    todo = [(kind, name, make) for kind in kinds for name, make in makers(kind).items()]
    total = len(todo) * n_seeds * ground.n_steps * ground.batch
    with progress("Train", total, "vectors") as bar:
        for kind, name, make in todo:
            for seed in range(n_seeds):
                own = settings.get(kind, {}).get(name, {})
                task = Task(
                    kind=kind,
                    **{size: getattr(ground, size) for size in ("d_in", "d_sae", "k", "batch", "n_steps")},
                    seed=seed,
                    lr=own.get("lr"),
                    settings={key: value for key, value in own.items() if key != "lr"},
                )
                learner = make(task, Stream(ground, 10_000 + seed).batch(SAMPLE))
                train(learner, ground, seed, bar)
                row = {"ground": ground.name, "kind": kind, "library": name, "seed": seed}
                rows.append(row | score(learner, ground, x, fired))
                print(json.dumps(rows[-1]), flush=True)
    return rows


def figures(rows: list[dict[str, Any]]) -> list[bench.Figure]:
    """Average over seeds; the range over seeds goes into the unit's place."""
    found = []
    groups = dict.fromkeys((row["ground"], row["kind"], row["library"]) for row in rows)
    better = {"fvu": "lower", "dead": "lower", "l0": "neither"}
    for ground, kind, library in groups:
        own = [row for row in rows if (row["ground"], row["kind"], row["library"]) == (ground, kind, library)]
        for measure in (key for key in own[0] if key not in ("ground", "kind", "library", "seed")):
            values = [row[measure] for row in own]
            spread = f"[{min(values):.3f}, {max(values):.3f}]"
            direction: Any = better.get(measure, "higher")
            name = f"{ground}/{kind}/{library}/{measure}"
            found.append(bench.Figure(name, sum(values) / len(values), spread, direction, TARGETS.get(name)))
    return found


TARGETS = {
    "small/topk/sae/fvu": 0.150,
    "small/topk/sae/recovered": 0.93,
    "small/topk/sae/dead": 0.0,
    "small/batch_topk/sae/fvu": 0.170,
    "small/batch_topk/sae/recovered": 0.85,
    "small/batch_topk/sae/dead": 0.0,
}


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--grounds", nargs="*", default=["small"], choices=list(grounds()))
    parser.add_argument("--kinds", nargs="*", default=["topk", "batch_topk", "matryoshka", "jumprelu", "relu"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--settings", type=json.loads, default=PENALTIES, help="JSON: kind -> library -> settings, lr too"
    )
    options: argparse.Namespace = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.grounds:
        rows += run(grounds()[name], options.kinds, options.seeds, options.settings)
    bench.publish(figures(rows), options.json)


if __name__ == "__main__":
    main()
