"""Every bar of the laboratory on both seeds of the built-in CLIP model, controls beside it.

python -m scripts.bench_lab [--json FILE] [--threads 2] [--part joint] [--seed 0] [--out runs/lab]

Needs the stores of configs/harvest-concepts-clip-score.yaml (for seed 1 with --subject builtin:concepts-clip-rn@1
--inputs.seed 1 --out runs/concepts-clip-1/store-score), and for single parts what their scripts say. It takes about
eighty minutes of one core, twenty of them a seed for the ablations in `visual.layer4.0`; --part and --seed measure
some of it alone.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from scripts import bench
from scripts import bench_lab_associations as associations
from scripts import bench_lab_audit as audit
from scripts import bench_lab_interventions as interventions
from scripts import bench_lab_joint as joint
from scripts import bench_lab_levels as levels
from scripts import bench_lab_reading as reading
from scripts import bench_lab_transformer as transformer
from scripts import bench_lab_visualise as visualise
from scripts.bench_lab_findings import of

STORES = {0: Path("runs/concepts-clip/store-score"), 1: Path("runs/concepts-clip-1/store-score")}
SUBJECTS = {seed: f"builtin:concepts-clip-rn@{seed}" for seed in STORES}
Measured = list[bench.Figure]
BY_SEED: dict[str, Callable[[int, Path], Measured]] = {
    "joint": lambda seed, _: joint.figures(SUBJECTS[seed], STORES[seed]),
    "levels": lambda seed, _: levels.figures(SUBJECTS[seed], STORES[seed]),
    "interventions": lambda seed, out: interventions.figures(SUBJECTS[seed], STORES[seed], out / f"seed {seed}"),
    "associations": lambda seed, _: associations.figures(SUBJECTS[seed], STORES[seed]),
    "visualise": lambda seed, out: visualise.figures(
        SUBJECTS[seed], STORES[seed], SUBJECTS[1 - seed], out / f"seed {seed}"
    ),
}
ONCE: dict[str, Callable[[Path], Measured]] = {
    "audit": audit.figures, "reading": reading.figures, "transformer": transformer.figures,
}  # fmt: skip
"""Parts that compare both seeds, or need a subject of their own."""


def runs(parts: list[str], seeds: list[int], out: Path) -> Iterator[tuple[str, Callable[[], Measured]]]:
    """Yield what is measured at one go and how; figures of parts that are for each seed have it in their name."""

    def of_seed(part: str, seed: int) -> Measured:
        return of(f"seed {seed}", BY_SEED[part](seed, out))

    for part in parts:
        if part in ONCE:
            yield part, partial(ONCE[part], out)
        else:
            yield from ((f"{part}, seed {seed}", partial(of_seed, part, seed)) for seed in seeds)


def main() -> None:
    options = bench.parser(__doc__)
    parts = [*BY_SEED, *ONCE]
    options.add_argument("--part", choices=parts, action="append", help="only this; may be given more than once")
    options.add_argument("--seed", type=int, choices=STORES, action="append", help="only this; both if not given")
    options.add_argument("--out", type=Path, default=Path("runs/lab"), help="folder for findings and pictures")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    found: Measured = []
    for name, run in runs(given.part or parts, given.seed or list(STORES), given.out):
        took = bench.timed(lambda run=run: found.extend(run()))
        print(f"{name}: {took.clock / 60:.1f} minutes", file=sys.stderr, flush=True)
        if given.json:  # at once: it is more than an hour to the end
            bench.write(found, given.json)
    bench.publish(found)


if __name__ == "__main__":
    main()
