"""How many units change regime between medium and strong activation, or have a label on their negative side.

python -m scripts.bench_lab_levels --store runs/concepts-clip/store-score
"""

from pathlib import Path

import torch

from sae.lab import regimes, suppression
from scripts import bench
from scripts.bench import Figure

DICTIONARY = "builtin:concepts-clip-rn/visual.layer4.0.hook_post"
N_VECTORS = 48_000
FEWEST = 5
KINDS = ("latent", "neuron", "random_direction")


def figures(dictionary: str, store: Path) -> list[Figure]:
    """Return the shares of latents and, beside them, of the controls; none has a bar."""
    settings = {"dictionary": dictionary, "store": store, "n_vectors": N_VECTORS}
    changed = regimes.run(regimes.Config(fewest=FEWEST, **settings)).figures
    negative = suppression.run(suppression.Config(**settings)).figures
    shares = [(f"lab/regimes/{kind}", changed[f"{kind}, share of tested"]) for kind in KINDS]
    for kind in KINDS:
        share = negative[f"{kind}, suppress a label"] / negative[f"{kind}, units"]
        shares.append((f"lab/suppression/{kind}", share))
    return [Figure(name, value, "share", "higher", None) for name, value in shares]


def main() -> None:
    options = bench.parser(__doc__)
    options.add_argument("--dictionary", default=DICTIONARY)
    options.add_argument("--store", type=Path, required=True)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    bench.publish(figures(given.dictionary, given.store), given.json)


if __name__ == "__main__":
    main()
