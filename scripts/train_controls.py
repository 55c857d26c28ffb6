"""Train the controls of a built-in dictionary: `python scripts/train_controls.py stdlib-1l`.

Three dictionaries by the recipe of configs/train-NAME.yaml, same vectors, same order, same steps: one with a frozen
random decoder, one with a frozen random encoder, and one on the same subject with random weights, whose activations
are harvested first, as in configs/harvest-NAME.yaml.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sae import builtin, cli, config  # noqa: E402
from sae.activations.harvest_config import HarvestConfig  # noqa: E402
from sae.activations.store import ActivationStore  # noqa: E402
from sae.dictionaries.io import save_dictionary  # noqa: E402
from sae.dictionaries.registry import decode_config  # noqa: E402
from sae.training.config import TrainConfig  # noqa: E402
from sae.training.loop import train  # noqa: E402

CONTROLS = ("frozen_decoder", "frozen_encoder", "untrained_subject")


def harvested(name: str, hookpoint: str, out: Path, subject: str, n_examples: int | None) -> ActivationStore:
    """Return the finished store of a subject; if there is none, harvest it by the recipe of a built-in one."""
    if (out / "config.yaml").is_file():  # written when a harvest is complete
        return ActivationStore(out)
    words = ["harvest", str(ROOT / "configs" / f"harvest-{name}.yaml"), "--subject", subject, "--out", str(out)]
    words += ["--hookpoints", hookpoint] if subject.startswith(builtin.UNTRAINED) else []
    words += ["--inputs.n-examples", str(n_examples)] if n_examples is not None else []
    if status := cli.main(words):
        sys.exit(status)
    return ActivationStore(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("stdlib-1l", "concepts-clip"))
    parser.add_argument("--only", nargs="+", choices=CONTROLS, default=CONTROLS, help="some of the controls")
    parser.add_argument("--n-vectors", type=int, help="vectors to train on, in place of the recipe's")
    parser.add_argument("--n-examples", type=int, help="examples to harvest, in place of the recipe's")
    parser.add_argument("--work", type=Path, default=ROOT / "runs", help="folder of stores and runs (default: runs)")
    parser.add_argument("--out", type=Path, help="folder of the controls (default: controls/ of the built-in's)")
    options = parser.parse_args()
    recipe = config.load(TrainConfig, ROOT / "configs" / f"train-{options.name}.yaml")
    subject = config.load(HarvestConfig, ROOT / "configs" / f"harvest-{options.name}.yaml").subject
    out = options.out or builtin.dictionary_folder(f"{subject}/{recipe.hookpoint}") / "controls"
    work = options.work / options.name
    for control in options.only:
        untrained = control == "untrained_subject"
        id, store = (builtin.UNTRAINED + subject, "store-untrained") if untrained else (subject, "store")
        kind = recipe.dictionary.kind if untrained else control
        settings = dataclasses.replace(
            recipe,
            store=work / store,
            out=work / "controls" / control,
            dictionary=decode_config(config.encode(recipe.dictionary) | {"kind": kind}),
            n_vectors=options.n_vectors or recipe.n_vectors,
        )
        vectors = harvested(options.name, recipe.hookpoint, settings.store, id, options.n_examples)
        resume = (settings.out / "checkpoints").is_dir()
        save_dictionary(train(vectors, settings, resume=resume), out / control, compact=True)


if __name__ == "__main__":
    main()
