"""What reads in the built-in CLIP subject that reads inside scenes, how it is attacked, and what defends it.

Part of the bench of the laboratory: `figures` runs reading and attack on both dictionaries and saves what they found
below a folder. Needs runs/concepts-clip-reader/store-score (configs/harvest-concepts-clip-reader-score.yaml); about ten
minutes for each dictionary on an idle core.
"""

from collections.abc import Mapping
from pathlib import Path

from sae.lab.typography import attack, reading
from sae.lab.typography.attack import LEAD
from sae.lab.typography.defences import AS_ACTIVE, HEADS, LEARNT, PRINCIPAL, RANDOM, READING
from scripts.bench import Figure
from scripts.bench_lab_findings import kept

SUBJECT, STORE = "builtin:concepts-clip-rn-reader", Path("runs/concepts-clip-reader/store-score")
HOOKPOINTS = ("visual.layer4.0.hook_post", "visual.embedding")
N_VECTORS, N_PAIRS, N_TRIED = 48_000, 1912, 478
LEFT_TARGET, LOSS_TARGET = 0.5, 0.01
"""Success is to fall by half, at a loss of clean accuracy of at most one point."""
CONTROLS = (RANDOM, AS_ACTIVE, "neurons", "difference of means", HEADS, PRINCIPAL, LEARNT)


def figures(out: Path) -> list[Figure]:
    """Run the methods and return their headline figures."""
    found = []
    for hookpoint in HOOKPOINTS:
        common = {"dictionary": f"{SUBJECT}/{hookpoint}", "store": STORE, "n_vectors": N_VECTORS}
        read = kept(reading.run(reading.Config(**common)), out / hookpoint).figures
        attacked = kept(attack.run(attack.Config(n_pairs=N_PAIRS, n_tried=N_TRIED, **common)), out / hookpoint)
        place = f"lab/reading/{hookpoint}"
        for units in reading.SETS:
            for kind in ("class", "letters"):
                name = f"{units}: {kind} strings with a unit"
                found.append(Figure(f"{place}/{name}", read[name], "share", "neither"))
        found += _defences(f"lab/attack/{hookpoint}", attacked.figures)
    return found


def _defences(place: str, figures: Mapping[str, float]) -> list[Figure]:
    before = figures["success, zero-shot"]
    found = [Figure(f"{place}/success before", before, "share", "neither")]
    for name in (LEAD, *READING, *CONTROLS):
        if f"{name}: success" not in figures:
            continue
        bars = (LEFT_TARGET, LOSS_TARGET) if name == LEAD else (None, None)
        left, loss = figures[f"{name}: success"] / before, figures[f"{name}: clean loss"]
        found.append(Figure(f"{place}/success left: {name}", left, "share", "lower" if bars[0] else "neither", bars[0]))
        found.append(Figure(f"{place}/clean loss: {name}", loss, "share", "lower" if bars[1] else "neither", bars[1]))
    return found
