"""Train one of the built-in subjects anew: `python scripts/train_subjects.py stdlib-1l --seed 0`."""

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

NAMES = ("stdlib-1l", "stdlib-4l", "concepts-clip", "concepts-clip-rn", "concepts-clip-rn-reader")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the subject (default: checkpoints/subjects/NAME-SEED)")
    parser.add_argument("--work", type=Path, help="folder of what a later call resumes from (default: runs/subjects)")
    parser.add_argument("--processes", type=int, default=2, help="of CLIP subjects, one thread each")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    out = options.out or ROOT / "checkpoints" / "subjects" / f"{options.name}-{options.seed}"
    work = options.work or ROOT / "runs" / "subjects"
    work.mkdir(parents=True, exist_ok=True)
    if options.name.startswith("concepts"):
        from scripts.subjects import clip

        clip.main(options.name, options.seed, out, work, options.processes)
    else:
        from scripts.subjects import language

        language.main(options.name, options.seed, out, work)


if __name__ == "__main__":
    main()
