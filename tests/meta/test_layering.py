"""Imports point one way. The table is that of the design; function-level imports count."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sae"
BASE = {"arguments", "builtin", "config", "durable", "errors", "log", "notebook", "tensors"}
BELOW = BASE | {"subjects", "inputs", "kernels"}
ALLOWED: dict[str, set[str]] = {
    **dict.fromkeys(BASE, BASE),
    "subjects": BASE,
    "inputs": BASE,
    "kernels": BASE,
    "dictionaries": BASE | {"kernels"},
    "activations": BASE | {"subjects", "inputs"},
    "training": BELOW | {"dictionaries", "activations"},
    "evaluation": BELOW | {"dictionaries", "activations"},
    "features": BELOW | {"dictionaries", "activations", "evaluation"},
    "lab": BELOW | {"dictionaries", "activations", "evaluation", "features"},
    "server": BASE | {"features"},
}
ONLY_IN = {"wandb": "sae/log.py", "transformer_lens": "sae/subjects/language.py", "open_clip": "sae/subjects/vision.py"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            if node.module == "sae":
                yield from (f"sae.{alias.name}" for alias in node.names)


def modules() -> list[Path]:
    return [
        path for path in sorted(PACKAGE.rglob("*.py")) if path.name not in ("cli.py", "cli_catalogs.py", "__main__.py")
    ]


def violations(part: str, names: list[str]) -> list[str]:
    parts = {name.split(".")[1] for name in names if name.startswith("sae.")} - {"__version__"}
    return sorted(other for other in parts - {part} if other not in ALLOWED[part])


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert not violations(part, list(imported(ast.parse(path.read_text()))))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_big_optional_packages_have_one_home(path: Path) -> None:
    relative = str(path.relative_to(PACKAGE.parent))
    for name in imported(ast.parse(path.read_text())):
        home = ONLY_IN.get(name.split(".")[0])
        assert home in (None, relative), f"{name} is imported in {relative}, its home is {home}"


def test_the_check_can_fail() -> None:
    assert violations("dictionaries", ["sae.training.loop", "torch"]) == ["training"]
    assert violations("subjects", ["sae.inputs"]) == ["inputs"]
