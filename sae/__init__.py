"""Take a trained network apart into features a person can understand.

Everything below is loaded when it is first used, so `import sae` is cheap and needs no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ActivationStore": "sae.activations.store",
    "Catalog": "sae.features.catalog",
    "CatalogConfig": "sae.features.building.catalog_config",
    "Codes": "sae.dictionaries.codes",
    "Dictionary": "sae.dictionaries.base",
    "EvaluateConfig": "sae.evaluation.config",
    "HarvestConfig": "sae.activations.harvest_config",
    "Report": "sae.evaluation.report",
    "SaeError": "sae.errors",
    "TrainConfig": "sae.training.config",
    "ablate": "sae.subjects.splice",
    "build_catalog": "sae.features.building.build",
    "builtin_inputs": "sae.inputs.source",
    "evaluate": "sae.evaluation.evaluate",
    "export_dictionary": "sae.dictionaries.io",
    "harvest": "sae.activations.harvest",
    "load_config": "sae.config",
    "load_dictionary": "sae.dictionaries.io",
    "load_subject": "sae.subjects.load",
    "open_inputs": "sae.inputs.source",
    "reconstruct": "sae.subjects.splice",
    "save_dictionary": "sae.dictionaries.io",
    "stored_chunks": "sae.features.examples",
    "top_examples": "sae.features.examples",
    "train": "sae.training.loop",
}
_RENAMED = {"build_catalog": "build", "load_config": "load", "load_subject": "load"}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sae' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), _RENAMED.get(name, name))


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
