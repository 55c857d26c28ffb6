"""The notebook docs/tour.ipynb runs from its first cell to its last, and its last expressions show themselves."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

TOUR = Path(__file__).parents[2] / "docs" / "tour.ipynb"


def shown(source: str, names: dict[str, Any]) -> Any:
    """Run a cell and return the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(TOUR), "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), str(TOUR), "eval"), names)


def test_the_tour_runs(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [cell for cell in json.loads(TOUR.read_text())["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    values = [shown("".join(cell["source"]), names) for cell in cells]
    drawn = [value._repr_html_() for value in values if hasattr(value, "_repr_html_")]
    assert sum("<iframe" in html for html in drawn) >= 2
    assert all("<iframe" in html or 'class="sae-panel"' in html for html in drawn)
    assert names["card"]["labels"][0]["auc"] > 0.9 and names["fvu"] < 0.6
    assert "AUC" in capsys.readouterr().out
