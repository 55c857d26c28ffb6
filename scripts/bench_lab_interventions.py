"""What removing and adding latents does to the built-in CLIP subject, beside controls.

Part of the bench of the laboratory: `figures` runs ablate, lesion and steer on both shipped dictionaries and
saves what they found below a folder.
"""

from pathlib import Path

from sae.lab.change import ablate, lesion, steer
from sae.lab.finding import Finding
from scripts.bench import Figure

SUBJECT, STORE = "builtin:concepts-clip-rn", Path("runs/concepts-clip/store-score")
HOOKPOINTS = ("visual.layer4.0.hook_post", "visual.embedding")
SELECTIVE_TARGET = 0.5
N_VECTORS = 48_000
"""All 12,000 images of the store: of fewer some concepts have too few to choose a latent on."""
KING = 128
"""The latent of visual.embedding that separates `concept=king` best."""


def figures(out: Path) -> list[Figure]:
    """Run the methods and return their headline figures."""
    found = []
    for hookpoint in HOOKPOINTS:
        common = {"dictionary": f"{SUBJECT}/{hookpoint}", "store": STORE, "n_vectors": N_VECTORS}
        removed = _saved(ablate.run(ablate.Config(**common)), out / hookpoint)
        gone = _saved(lesion.run(lesion.Config(**common)), out / hookpoint)
        place = f"lab/{hookpoint}"
        found += [
            Figure(f"{place}/{name.replace(': ', '/')}", value, "share", "neither")
            for name, value in removed.figures.items()
            if name.startswith("selective: ") and name != "selective: latent"
        ]
        found.append(
            Figure(
                f"{place}/selective/latent", removed.figures["selective: latent"], "share", "higher", SELECTIVE_TARGET
            )
        )
        found += [
            Figure(f"{place}/lesion/{name}", value, "", "neither")
            for name, value in gone.figures.items()
            if name.startswith(("median", "bits"))
        ]
    config = steer.Config(dictionary=f"{SUBJECT}/{HOOKPOINTS[1]}", store=STORE, latent=KING, target="king")
    steered = _saved(steer.run(config), out / "steer")
    for name in ("steered probability", "move: controls' 95th percentile", "kl, nats"):
        found.append(Figure(f"lab/steer king/{name}", steered.figures[name], "", "neither"))
    return found


def _saved(found: Finding, folder: Path) -> Finding:
    found.save(folder)
    return found
