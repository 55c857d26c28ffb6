"""What latents weakly fire for, what tunes them, their families, and how far neighbours in an atlas agree.

Part of scripts/bench_lab.py: python -m scripts.bench_lab --part associations
"""

from pathlib import Path

from sae.lab.associations import associations, families
from sae.lab.atlas import atlas
from sae.lab.tuning import tuning
from scripts.bench import Figure

N_VECTORS = 48_000
UNITS = ("latents", "neurons", "random directions")


def figures(subject: str, store: Path) -> list[Figure]:
    """Return the figures of latents and, beside them, of the controls; none has a bar."""
    settings = {"dictionary": f"{subject}/visual.embedding", "store": store, "n_vectors": N_VECTORS}
    gone = associations.run(associations.Config(**settings)).figures
    tuned = tuning.run(tuning.Config(**settings)).figures
    grouped = families.run(families.Config(**settings)).figures
    laid_out = atlas.run(atlas.Config(**settings)).figures
    found = []
    for who in UNITS:
        of = who.replace(" ", "_")
        found += [
            (f"lab/associations/{of}", gone[f"{who}, correlation"]),
            (f"lab/tuning/hue/{of}", tuned[f"hue, {who}, explained"]),
            (f"lab/tuning/hue/step-like/{of}", tuned[f"hue, {who}, step-like"]),
            (f"lab/tuning/map/{of}", tuned[f"map, {who}, clustered"]),
            (f"lab/families/both/{of}", grouped[f"{who}, with one by both"]),
            (f"lab/families/frequency/{of}", grouped[f"{who}, rank correlation"]),
        ]
    other = grouped["latents, other seed's frequencies, rank correlation"]
    found += [
        ("lab/associations/dealt", gone["latents, correlation, dealt"]),
        ("lab/families/frequency/other_seed", other),
        ("lab/atlas/family", laid_out["family, neighbours agree"]),
        ("lab/atlas/family/shuffled", laid_out["family, shuffled"]),
    ]
    return [Figure(name, value, "share", "neither" if "tuning" in name else "higher", None) for name, value in found]
