"""Every bar of the laboratory on the built-in CLIP model, controls beside it.

python -m scripts.bench_lab [--json FILE] [--threads 2] [--part joint] [--out runs/lab]

Needs runs/concepts-clip/store-score (configs/harvest-concepts-clip-score.yaml). The ablations in `visual.layer4.0` take
most of the time, ten minutes on two cores; --part measures some of it alone.
"""

from pathlib import Path

import torch

from scripts import bench, bench_lab_interventions, bench_lab_joint, bench_lab_levels
from scripts.bench_lab_interventions import STORE


def main() -> None:
    parts = {
        "joint": lambda: bench_lab_joint.figures(bench_lab_joint.DICTIONARY, STORE),
        "levels": lambda: bench_lab_levels.figures(bench_lab_levels.DICTIONARY, STORE),
        "interventions": lambda: bench_lab_interventions.figures(given.out),
    }
    options = bench.parser(__doc__)
    options.add_argument("--part", choices=parts, action="append", help="only this; may be given more than once")
    options.add_argument("--out", type=Path, default=Path("runs/lab"), help="folder for findings and pictures")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    bench.publish([figure for part in given.part or parts for figure in parts[part]()], given.json)


if __name__ == "__main__":
    main()
