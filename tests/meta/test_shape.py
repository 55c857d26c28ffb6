"""The code keeps its shape: sizes, names and habits that review would otherwise have to repeat."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "sae").rglob("*.py"))
VAGUE = {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert path.stem not in VAGUE
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_exception_is_swallowed_unseen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
            assert getattr(node.type, "id", "") not in ("Exception", "BaseException"), f"{path}:{node.lineno}"


def test_no_two_test_files_share_a_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), "pytest imports them by that name alone"


def test_tests_mirror_the_package() -> None:
    parts = {path.parent.name for path in PACKAGE if path.parent != ROOT / "sae"}
    for folder in (ROOT / "tests").iterdir():
        if folder.is_dir() and folder.name not in ("meta", "interop", "__pycache__", "data"):
            assert folder.name in parts, f"tests/{folder.name} mirrors nothing"
