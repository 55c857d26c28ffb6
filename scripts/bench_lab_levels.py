"""How many units change regime between medium and strong activation, or have a label on their negative side.

Part of scripts/bench_lab.py: python -m scripts.bench_lab --part levels
"""

from pathlib import Path

from sae.lab.levels import regimes, suppression
from scripts.bench import Figure

N_VECTORS = 48_000
FEWEST = 5
KINDS = ("latent", "neuron", "random_direction")


def figures(subject: str, store: Path) -> list[Figure]:
    """Return the shares of latents and, beside them, of the controls; none has a bar."""
    settings = {"dictionary": f"{subject}/visual.layer4.0.hook_post", "store": store, "n_vectors": N_VECTORS}
    changed = regimes.run(regimes.Config(fewest=FEWEST, **settings)).figures
    negative = suppression.run(suppression.Config(**settings)).figures
    shares = [(f"lab/regimes/{kind}", changed[f"{kind}, share of tested"]) for kind in KINDS]
    for kind in KINDS:
        share = negative[f"{kind}, suppress a label"] / negative[f"{kind}, units"]
        shares.append((f"lab/suppression/{kind}", share))
    return [Figure(name, value, "share", "higher", None) for name, value in shares]
