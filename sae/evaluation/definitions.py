"""All the metrics there are: each family is a module, known by name here and registered when it is imported."""

import importlib

from sae.evaluation.metric import METRICS, Definition

FAMILIES = {
    "reconstruction": "Reconstruction and firing",
    "splicing": "Effect on the subject",
    "labels": "Labels",
    "labels_equal": "Labels with equal candidates",
    "facets": "Facets seen and unseen",
    "joint_space": "The joint space of images and texts",
    "dissection": "Network dissection",
    "explanations": "Explanations",
    "similarity": "Similarity of what excites a latent",
    "resolution": "Resolution of neurons",
    "pairs": "Paired inputs",
    "stability": "Stability over seeds",
    "universality": "Universality over subjects",
    "splitting": "Feature splitting",
    "recovery": "Recovery of a known dictionary",
}
"""Modules of `sae.evaluation` that define metrics, with a title, in the order of the documentation."""


def import_families() -> dict[str, list[Definition]]:
    """Import every family and return its definitions in the order in which they were written."""
    found = {}
    for family in FAMILIES:
        module = importlib.import_module(f"sae.evaluation.{family}")
        found[family] = [one for one in METRICS.values() if one.module == module.__name__]
    return found


def definition(name: str, version: int) -> Definition | None:
    """Look up what a score in a report means; None for a metric, or a version of one, that is not known here."""
    import_families()
    found = METRICS.get(name)
    return found if found is not None and found.version == version else None
