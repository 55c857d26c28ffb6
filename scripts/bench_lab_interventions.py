"""What removing and adding latents does to the built-in CLIP subject, beside controls.

Part of the bench of the laboratory: `figures` runs ablate, lesion and steer on both shipped dictionaries and
saves what they found below a folder.
"""

from pathlib import Path

from sae.evaluation.weights import Weights
from sae.lab.change import ablate, lesion, steer
from sae.lab.workbench import Workbench, WorkbenchConfig
from scripts.bench import Figure
from scripts.bench_lab_findings import kept

HOOKPOINTS = ("visual.layer4.0.hook_post", "visual.embedding")
SELECTIVE_TARGET = 0.5
N_VECTORS = 48_000
"""All 12,000 images of the store: of fewer some concepts have too few to choose a latent on."""
STEERED = "king"
ABLATED = {"selective": "share", "own fall": "probability", "accuracy others lose": "share", "share removed": "share"}
"""What is said of the latent and of every control where it costs others no more, and in which unit."""


def figures(subject: str, store: Path, out: Path) -> list[Figure]:
    """Run the methods and return their headline figures."""
    found = [one for place in HOOKPOINTS for one in removed(subject, place, store, out)]
    return found + _steered(f"{subject}/{HOOKPOINTS[1]}", store, out)


def removed(subject: str, hookpoint: str, store: Path, out: Path) -> list[Figure]:
    """Return what ablations and lesions at one hookpoint do."""
    common = {"dictionary": f"{subject}/{hookpoint}", "store": store, "n_vectors": N_VECTORS}
    ablated = kept(ablate.run(ablate.Config(**common)), out / hookpoint).figures
    lesions = kept(lesion.run(lesion.Config(**common)), out / hookpoint).figures
    place = f"lab/{hookpoint}"
    found = [
        Figure(f"{place}/{name.replace(': ', '/')}", value, unit, "neither")
        for start, unit in ABLATED.items()
        for name, value in ablated.items()
        if name.startswith(f"{start}: ") and name != "selective: latent"
    ]
    found.append(Figure(f"{place}/selective/latent", ablated["selective: latent"], "share", "higher", SELECTIVE_TARGET))
    return found + [
        Figure(f"{place}/lesion/{name}", value, "", "neither")
        for name, value in lesions.items()
        if name.startswith(("median", "bits"))
    ]


def _steered(dictionary: str, store: Path, out: Path) -> list[Figure]:
    """Add the latent that detects one concept best."""
    bench = Workbench.open(WorkbenchConfig(dictionary=dictionary, store=store))
    column = bench.sample.table.names.index(f"concept={STEERED}")
    half = bench.sample.match
    labels = Weights.of(bench.sample.table.columns[half][:, [column]])
    latent = int(bench.latents.responses.on(half).auc(labels).argmax())
    config = steer.Config(dictionary=dictionary, store=store, latent=latent, target=STEERED)
    steered = kept(steer.run(config), out / "steer")
    names = ("steered probability", "move: controls' 95th percentile", "kl, nats")
    return [Figure(f"lab/steer {STEERED}/{name}", steered.figures[name], "", "neither") for name in names]
