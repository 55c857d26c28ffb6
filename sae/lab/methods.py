"""The methods of the laboratory by name, and their command: sae lab METHOD [CONFIG.yaml] [--setting value ...]."""

from importlib import import_module
from pathlib import Path
from typing import Any

from sae.arguments import configured
from sae.errors import ConfigError, nearest
from sae.lab.finding import Finding

METHODS: dict[str, str] = {
    "search": "sae.lab.search",
    "text": "sae.lab.text",
    "arithmetic": "sae.lab.arithmetic",
    "levels": "sae.lab.levels",
    "regimes": "sae.lab.regimes",
    "suppression": "sae.lab.suppression",
    "ablate": "sae.lab.ablate",
    "lesion": "sae.lab.lesion",
    "steer": "sae.lab.steer",
    "visualise": "sae.lab.visualise.method",
}
"""Module of each method; it has a `Config`, a subclass of `WorkbenchConfig`, and `run(config) -> Finding`."""


def run_method(name: str, arguments: list[str]) -> tuple[Finding, Path | None]:
    """Run a method; return what it found, and the folder where its config wants it, or None.

    Raises:
        ConfigError: there is no such method.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}.{nearest(name, METHODS)}")
    module: Any = import_module(METHODS[name])
    config = configured(module.Config, arguments, f"sae lab {name}")
    return module.run(config), config.out


def usage() -> str:
    """Return the methods, one a line, each with the first sentence of its module."""
    lines = [
        "usage: sae lab METHOD [CONFIG.yaml] [--setting value ...]   (sae lab METHOD --help lists its settings)",
        "",
    ]
    return "\n".join(lines + [f"  {name:<14} {_first_line(module)}" for name, module in METHODS.items()])


def _first_line(module: str) -> str:
    return (import_module(module).__doc__ or "").partition("\n")[0]
