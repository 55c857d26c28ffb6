"""The methods of the laboratory by name, and their command: sae lab METHOD [CONFIG.yaml] [--setting value ...]."""

from importlib import import_module
from typing import Any

from sae import log
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
}
"""Module of each method; it has a `Config`, a subclass of `WorkbenchConfig`, and `run(config) -> Finding`."""


def lab(arguments: list[str]) -> Finding | None:
    """Run a method by its name, print what it found, and save it where its config says; None for --help.

    Raises:
        ConfigError: there is no such method.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())  # noqa: T201
        return None
    name, *rest = arguments
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}.{nearest(name, METHODS)}")
    module: Any = import_module(METHODS[name])
    config = configured(module.Config, rest, f"sae lab {name}")
    found: Finding = module.run(config)
    if found.rows:
        log.table(list(found.rows[0]), [list(row.values()) for row in found.rows])
    log.table(("figure", "value"), list(found.figures.items()))
    print(found.verdict)  # noqa: T201
    if config.out is not None:
        found.save(config.out)
        print(f"saved in {config.out}")  # noqa: T201
    return found


def usage() -> str:
    """Return the methods, one a line, each with the first sentence of its module."""
    lines = [
        "usage: sae lab METHOD [CONFIG.yaml] [--setting value ...]   (sae lab METHOD --help lists its settings)",
        "",
    ]
    return "\n".join(lines + [f"  {name:<14} {_first_line(module)}" for name, module in METHODS.items()])


def _first_line(module: str) -> str:
    return (import_module(module).__doc__ or "").partition("\n")[0]
