"""How many visualisations drive their latent, and show other subjects its concept and the facet asked for.

Part of scripts/bench_lab.py. Pictures are optimised on one seed of the built-in CLIP model and judged by the other.
"""

from collections.abc import Mapping
from pathlib import Path

from sae.inputs.concepts.vocabulary import FACETS
from sae.lab.visualise import method
from scripts.bench import Figure
from scripts.bench_lab_findings import kept

KINDS = ("latents", "neurons", "random_directions")
N_VECTORS = 48_000
SHOWN = 0.5
"""The bar: the share of labelled latents whose picture another subject takes for the concept, or for the facet."""


def figures(subject: str, store: Path, judge: str, out: Path) -> list[Figure]:
    """Run the method at both hookpoints, towards facets in the joint space, and return its headline figures."""
    common = {"store": store, "n_vectors": N_VECTORS, "judges": (judge,), "steps": 256}
    joint, layer = f"{subject}/visual.embedding", f"{subject}/visual.layer4.0.hook_post"
    shallow = method.Config(dictionary=joint, n_latents=32, **common)
    deep = method.Config(dictionary=layer, n_latents=24, ways=("fourier", "maco"), **common)
    steered = method.Config(
        dictionary=joint, n_latents=12, ways=("fourier",), facets=FACETS, strengths=(1.0, 3.0), **common
    )
    found = []
    for place, config in {"embedding": shallow, "layer4": deep}.items():
        found += plain(place, judge, kept(method.run(config), out / place).figures)
    return found + _steered(judge, kept(method.run(steered), out / "facets").figures)


def plain(place: str, judge: str, values: Mapping[str, float]) -> list[Figure]:
    """Return how many pictures drive their unit and show the judge its concept, without facets."""
    found = []
    for kind in KINDS:
        for way in ("fourier", "maco") if kind == KINDS[0] else ("fourier",):
            where = f"lab/visualise/{place}/{kind}/{way}"
            bar = SHOWN if (kind, way) == (KINDS[0], "fourier") else None
            found += [
                Figure(f"{where}/above-99", values[f"{kind}, {way}, above 99 %"], "share", "higher", None),
                Figure(f"{where}/concept", values[f"{kind}, {way}, {judge}, concept"], "share", "higher", bar),
            ]
    real, made = values["real pictures, spectrum distance"], values["latents, fourier, spectrum distance"]
    found.append(Figure(f"lab/visualise/{place}/spectrum-distance", made, "nats", "lower", None))
    return [*found, Figure(f"lab/visualise/{place}/spectrum-distance/real", real, "nats", "neither", None)]


def _steered(judge: str, values: Mapping[str, float]) -> list[Figure]:
    found = []
    for kind in KINDS:
        for key in ("facet", "both"):
            share = sum(values[f"{kind}, fourier, {facet}, {judge}, {key}"] for facet in FACETS) / len(FACETS)
            bar = SHOWN if kind == KINDS[0] else None
            found.append(Figure(f"lab/visualise/facets/{kind}/{key}", share, "share", "higher", bar))
    return found
