"""The methods of the laboratory by name, and their command: sae lab METHOD [CONFIG.yaml] [--setting value ...]."""

from importlib import import_module
from typing import Any

from sae.arguments import configured
from sae.errors import ConfigError, nearest
from sae.lab.finding import Finding
from sae.lab.workbench import WorkbenchConfig

METHODS: dict[str, str] = {
    "search": "sae.lab.words.search",
    "text": "sae.lab.words.text",
    "arithmetic": "sae.lab.words.arithmetic",
    "visualise": "sae.lab.visualise.method",
    "levels": "sae.lab.levels.levels",
    "regimes": "sae.lab.levels.regimes",
    "suppression": "sae.lab.levels.suppression",
    "label": "sae.lab.levels.label",
    "reading": "sae.lab.typography.reading",
    "attack": "sae.lab.typography.attack",
    "associations": "sae.lab.associations.associations",
    "tuning": "sae.lab.tuning.tuning",
    "families": "sae.lab.associations.families",
    "atlas": "sae.lab.atlas.atlas",
    "steer": "sae.lab.change.steer",
    "ablate": "sae.lab.change.ablate",
    "lesion": "sae.lab.change.lesion",
    "audit": "sae.lab.bias.audit",
    "universality": "sae.lab.universality.universality",
}
"""Module of each method; it has a `Config`, a subclass of `WorkbenchConfig`, and `run(config) -> Finding`."""


def run_method(name: str, arguments: list[str]) -> tuple[Finding, WorkbenchConfig]:
    """Run a method; return what it found, and the config that it ran with.

    Raises:
        ConfigError: there is no such method.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}.{nearest(name, METHODS)}")
    module: Any = import_module(METHODS[name])
    config = configured(module.Config, arguments, f"sae lab {name}")
    return module.run(config), config


def usage() -> str:
    """Return the methods, one a line, each with the first sentence of its module."""
    lines = [
        "usage: sae lab METHOD [CONFIG.yaml] [--setting value ...]   (sae lab METHOD --help lists its settings)",
        "",
    ]
    return "\n".join(lines + [f"  {name:<14} {_first_line(module)}" for name, module in METHODS.items()])


def _first_line(module: str) -> str:
    return (import_module(module).__doc__ or "").partition("\n")[0]
