"""`import sae` is cheap, and the core needs none of the optional packages."""

import subprocess
import sys

HEAVY = ("torch", "transformer_lens", "open_clip", "wandb", "starlette", "transformers", "datasets")
OPTIONAL = (
    *("transformer_lens", "open_clip", "wandb", "tyro", "beartype", "datasets"),
    *("matplotlib", "scipy", "sklearn", "umap", "PIL", "triton"),
)
CORE = (
    "sae.config",
    "sae.dictionaries.registry",
    "sae.training.loop",
    "sae.activations.store",
    "sae.evaluation.evaluate",
)


def loaded_after(statement: str, forbidden: tuple[str, ...]) -> str:
    code = f"import sys; {statement}; print([m for m in {forbidden!r} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_sae_is_light() -> None:
    assert loaded_after("import sae", HEAVY) == "[]"


def test_core_imports_without_optional_packages() -> None:
    blocked = f"sys.modules.update(dict.fromkeys({OPTIONAL!r}))"
    imports = "; ".join(f"import {name}" for name in CORE)
    assert loaded_after(f"{blocked}; {imports}", ()) == "[]"


def test_pages_and_explanations_need_no_torch() -> None:
    pages = "sae.server.app, sae.server.export, sae.server.run, sae.features.explanations"
    assert loaded_after(f"import {pages}", ("torch",)) == "[]"


def test_the_check_can_fail() -> None:
    assert loaded_after("import torch", HEAVY) == "['torch']"
