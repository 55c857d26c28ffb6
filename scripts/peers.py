"""The peer libraries, imported without the parts of them that need what scripts/interop_environment.sh leaves out."""

import importlib
import importlib.util
import sys
import types
from typing import Any

BARE = ("dictionary_learning", "overcomplete", "llamascopium")
"""Packages whose `__init__` imports language models, image models or databases."""


def load(module: str) -> Any:
    """Import a module of a peer library, a package of `BARE` without running its `__init__`.

    Raises:
        ModuleNotFoundError: the library is not installed.
    """
    package = module.partition(".")[0]
    if package in BARE and package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise ModuleNotFoundError(f"{package} is not installed; scripts/interop_environment.sh installs it.")
        bare = types.ModuleType(package)
        bare.__spec__ = spec
        bare.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[package] = bare
    return importlib.import_module(module)
