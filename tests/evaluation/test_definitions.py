import json
import re
from pathlib import Path

import pytest

import sae.evaluation
from sae.errors import ConfigError
from sae.evaluation.definitions import FAMILIES, definition, import_families
from sae.evaluation.metric import METRICS, Definition, find_metric
from scripts import write_metrics

PACKAGE = Path(sae.evaluation.__path__[0])


def test_every_module_that_registers_a_metric_is_a_family() -> None:
    registering = re.compile(r"^from sae.evaluation.metric import .*\b(item_metric|register)\b", re.MULTILINE)
    found = {path.stem for path in PACKAGE.glob("*.py") if registering.search(path.read_text())}
    assert found == set(FAMILIES)


@pytest.mark.parametrize("one", [one for family in import_families().values() for one in family], ids=lambda d: d.name)
def test_definitions_are_complete(one: Definition) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", one.name)
    assert one.bounds[0] < one.bounds[1] and one.version >= 1
    assert one.chance is None or one.bounds[0] <= one.chance <= one.bounds[1]
    assert re.match(r"[^\n]", one.text) and one.text.rstrip().endswith(".")
    assert one.better in ("lower", "higher", "neither")


def test_the_page_of_metrics_is_what_the_code_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert write_metrics.main(check=True) == 0, "run python scripts/write_metrics.py"
    for name in METRICS:
        if METRICS[name].module.startswith("sae.evaluation."):
            assert f"### {name}\n" in write_metrics.page()
    assert "up to date" in capsys.readouterr().out


def test_a_page_that_is_out_of_date_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_metrics, "PAGE", tmp_path / "metrics.md")
    assert write_metrics.main(check=True) == 1
    assert write_metrics.main(check=False) == 0
    assert write_metrics.main(check=True) == 0


def test_definitions_are_looked_up_with_their_version() -> None:
    found = definition("fvu", 1)
    assert found is not None and found.better == "lower"
    assert definition("fvu", 99) is None and definition("unheard_of", 1) is None
    with pytest.raises(ConfigError, match="unknown metric 'fvuu'"):
        find_metric("fvuu")


def test_the_schema_ships_with_the_package() -> None:
    assert json.loads((PACKAGE / "report_schema.json").read_text())["properties"]["format_version"] == {"const": 2}
