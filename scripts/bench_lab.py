"""Every bar of the laboratory on the built-in CLIP model, controls beside it.

python -m scripts.bench_lab [--json FILE] [--threads 2] [--out runs/lab]

Needs runs/concepts-clip/store-score (configs/harvest-concepts-clip-score.yaml). The ablations in `visual.layer4.0` take
most of the time, ten minutes on two cores.
"""

from pathlib import Path

import torch

from scripts import bench, bench_lab_interventions, bench_lab_joint
from scripts.bench_lab_interventions import STORE


def main() -> None:
    options = bench.parser(__doc__)
    options.add_argument("--out", type=Path, default=Path("runs/lab"), help="folder for findings and pictures")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    found = bench_lab_joint.figures(bench_lab_joint.DICTIONARY, STORE)
    bench.publish(found + bench_lab_interventions.figures(given.out), given.json)


if __name__ == "__main__":
    main()
